"""How the app starts and ends on odd machines, and what its page is made of."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass_environment

import gradio as gr
import httpx
import pytest
from faults_server import Server, Tab, frames

from ddpm_demo.ui import serve
from ddpm_demo.ui.app import TabRow, build_app
from ddpm_demo.ui.server import network
from ddpm_demo.ui.server.guard import closed, route_of

ROOT = Path(__file__).parents[1]


# The command line


NOBODY = """
import runpy, sys
try:
    import pwd
    pwd.getpwuid = lambda uid: {}[uid]
except ImportError:
    pass
sys.argv = ["app.py", "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_help_needs_no_home() -> None:
    """Neither the variable nor an entry in the list of users, as in many containers."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "DDPM_DEMO_DATA")}
    command = [sys.executable, "-c", NOBODY]
    answer = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "--port" in answer.stdout


def test_the_command_line_is_read_without_gradio_or_torch() -> None:
    code = "import sys, ddpm_demo.ui.serve; print({'gradio', 'torch'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which the app ends before it has begun."""
    with pytest.raises(SystemExit, match="2"):
        serve.options_of(arguments)
    return capsys.readouterr().err.splitlines()[-1].removeprefix("app.py: error: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_is_taken(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        said = refused(capsys, "--host", host, "--port", str(port))
    assert said == f"Port {port} is taken by another program: choose another one by --port."


@pytest.mark.parametrize("port", [-1, 0, 65_536, 10**30])
def test_a_port_that_is_none(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--port", str(port))
    assert said == f"--port must be a whole number from 1 to 65,535, not {port}."


def test_a_port_for_administrators(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bind(self: socket.socket, address: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", bind)
    said = refused(capsys, "--port", "80")
    assert said == "--port must be 1,024 or more, not 80, which needs an administrator's rights."


@pytest.mark.parametrize(
    "host", ["203.0.113.7", "nowhere.invalid", "a b", "x" * 300, "2001:db8::1"]
)
def test_a_host_that_is_not_this_machine(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--host", host, "--port", "7999")
    assert said.startswith("--host ")
    assert repr(host) in said


def test_kinds_of_addresses() -> None:
    for host in ("127.0.0.1", "127.0.0.9", "localhost", "::1", "[::1]"):
        assert network.is_here(host)
    for host in ("0.0.0.0", "::", "[::]", "192.168.0.7", "example.org"):
        assert not network.is_here(host)
    assert [network.written(host) for host in ("::1", "[::1]", "10.0.0.1")] == [
        "[::1]",
        "[::1]",
        "10.0.0.1",
    ]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "10.1.2.3", "box.local"]
)
def test_its_own_address_is_asked_without_a_proxy(
    host: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    network.ask_own_address_directly(host)

    def proxied(address: str) -> bool:
        with httpx.Client() as client:
            direct = client._transport
            return client._transport_for_url(httpx.URL(address)) is not direct

    scheme = "https" if variable == "https_proxy" else "http"
    assert not proxied(f"{scheme}://{network.written(host)}:7860/")
    assert not proxied(f"{scheme}://localhost:7860/")
    assert not proxied(f"{scheme}://example.org/")
    assert proxied(f"{scheme}://huggingface.co/")


def test_where_there_is_no_proxy_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    network.ask_own_address_directly("127.0.0.1")
    assert "no_proxy" not in os.environ


def test_no_proxy_at_all_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A star means every address only where it stands alone."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    network.ask_own_address_directly("127.0.0.1")
    assert proxy_bypass_environment("example.org")


# The guard


@pytest.mark.parametrize(
    ("path", "root", "shut"),
    [
        ("/gradio_api/dev/reload", "", True),
        ("/gradio_api/vibe-code/", "", True),
        ("/gradio_api/undo-vibe-edit", "", True),
        ("/gradio_api/deep_link", "", True),
        ("/gradio_api/process_recording", "", True),
        ("/gradio_api/proxy=https://example.org", "", True),
        ("/gradio_api/file=https://example.org", "", True),
        ("/gradio_api/file=/HTTP://example.org", "", True),
        ("/file/http://example.org", "", True),
        ("/room/gradio_api/dev/reload", "/room", True),
        ("/gradio_api/file=/dev/shm/gradio/cat.jpg", "", False),
        ("/gradio_api/file=/tmp/vibe-1/deep_link/proxy=/process_recording", "", False),
        ("/gradio_api/file=/tmp/file=http:/cat.jpg", "", False),
        ("/dev/gradio_api/queue/join", "/dev", False),
        ("/deep_link/vibe-/config", "/deep_link/vibe-", False),
        ("/dev/", "/dev/", False),
        ("/", "", False),
    ],
)
def test_the_guard_decides_on_routes(path: str, root: str, shut: bool) -> None:
    assert closed(route_of({"path": path, "root_path": root})) is shut


# A server among proxies, whose temporary folder has the name of a closed route


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("serving")
    odd = place / "dev" / "vibe-code" / "deep_link"
    odd.mkdir(parents=True)
    nowhere = "http://127.0.0.1:9"
    variables = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""}
    running = Server(place, TMPDIR=str(odd), **variables)
    running.temporary = odd
    yield running
    running.stop()
    shutil.rmtree(place)


def test_pictures_of_the_page_are_served(server: Server) -> None:
    tab = Tab(server)
    uploaded = tab.upload("cat.png", b"\x89PNG\r\n\x1a\n").json()[0]
    assert "/dev/vibe-code/deep_link/" in uploaded
    assert tab.http.get(f"gradio_api/file={uploaded}").status_code == 200
    assert tab.http.get("gradio_api/dev/reload").status_code == 403


def test_a_click_while_the_first_model_loads_is_answered(server: Server) -> None:
    assert frames(list(Tab(server).generate(steps=5, n=2)))[-1]["step"] == 5


def test_nothing_is_left_after_the_end(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert not list(server.temporary.iterdir())
    assert "Traceback" not in server.log


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_moment_when_the_page_is_up(number: int, tmp_path: Path) -> None:
    server = Server(tmp_path)  # up just now: the networks are still to come
    server.process.send_signal(number)
    assert server.process.wait(30) == 0, server.log
    assert not list(server.temporary.iterdir())
    assert "Traceback" not in server.log


def test_a_signal_before_the_page_is_up(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    starting = subprocess.Popen(
        [sys.executable, ROOT / "app.py", "--port", "7998"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    starting.terminate()
    _, said = starting.communicate(timeout=60)
    assert starting.returncode == 0, said
    assert not list(tmp_path.iterdir())


BUSY = """
import threading, time
from ddpm_demo.ui import serve
from ddpm_demo.ui.server import disk
(disk.folder() / "upload").touch()
threading.Thread(target=time.sleep, args=(60,)).start()  # Python would wait for it
serve.end_in(0.2)
print("last", end="")  # and is flushed
"""


def test_the_end_waits_for_no_thread(tmp_path: Path) -> None:
    """One may be amid a step of training, or a download."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", BUSY], cwd=ROOT, env=environment, timeout=50, stdout=subprocess.PIPE
    )
    assert (ended.returncode, ended.stdout) == (0, b"last")
    assert not list(tmp_path.iterdir())


# The page


def test_a_tab_is_one_row() -> None:
    """One from outside is shown; one that needs a model is left out where there is none."""
    rows = [
        TabRow("more", "More", lambda shared: gr.Markdown("from outside", elem_id="outside")),
        TabRow("judge", "Judge", lambda shared: pytest.fail("built"), needs_model=True),
    ]
    parts = build_app(rows).get_config_file()["components"]
    tabs = [part["props"]["label"] for part in parts if part["type"] == "tabitem"]
    assert tabs == ["More"]
    assert any(part["props"].get("elem_id") == "outside" for part in parts)


def test_no_two_listeners_of_a_change_keep_events() -> None:
    """Gradio would let them wake each other forever; see `controls.answer`."""
    keep: dict[tuple[int, str], list[str]] = {}
    for row in build_app().get_config_file()["dependencies"]:
        if row["backend_fn"] and row["trigger_mode"] == "always_last":
            for target in row["targets"]:
                keep.setdefault(tuple(target), []).append(row["api_name"])
    twice = {k: names for k, names in keep.items() if k[0] and k[1] != "load" and len(names) > 1}
    assert len(keep) > 5
    assert twice == {}
