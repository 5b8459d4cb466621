"""Names of models, files and pictures that nobody means well with; each has to get one sentence."""

PATHS = ("/etc/passwd", "../../etc/passwd", "http://127.0.0.1:1/x", "file:///etc/passwd")
NAMES = (
    *PATHS,
    "..\\..\\windows\\win.ini",
    "first/../../etc/passwd",
    "first/model.safetensors",
    "first\0.safetensors",
    "%2e%2e%2fetc%2fpasswd",
    "~root/.ssh/id_rsa",
    "$HOME",
    "google/ddpm-cifar10-32",  # a repo of the Hub, which visitors choose from a list
    "exact:mnist:60000",
    "FIRST",
    "first ",
    "first\n",
    "<img src=x onerror=alert(1)>",
    "{0.__class__}",
    "\U0001f600" * 2000,
    "a" * 100_000,
)
