"""The page in Firefox, by WebDriver BiDi, which it speaks by itself: `make browsers`.

It opens the page, runs, scrubs and saves once. It is no part of the suite, as it needs a Firefox
(`apt install firefox-esr`). WebKit is not tried: Debian's driver needs a screen.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

NAMES = ("firefox-esr", "firefox")
PATIENCE = 90.0  # seconds
FRAMES = "+(document.querySelector('#player [data-frames]')?.dataset.frames || 0)"
STATUS = "document.querySelector('#player [data-part=status]')?.textContent ?? ''"
PIXELS = "document.querySelector('#player canvas').toDataURL()"


class Firefox:
    """A page, and what can be asked of it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.send("session.new", capabilities={})
        self.page = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """One command of WebDriver BiDi, and its result.

        Raises:
            RuntimeError: the browser refused it.
        """
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": values}))
        while True:
            said = json.loads(self.socket.recv(PATIENCE))
            if said.get("id") == self.number:
                break
        if said["type"] == "error":
            raise RuntimeError(f"{method}: {said['message']}")
        result: dict[str, Any] = said["result"]
        return result

    def open(self, url: str) -> None:
        self.send("browsingContext.navigate", context=self.page, url=url, wait="complete")

    def value(self, script: str) -> Any:
        """What an expression gives in the page."""
        target = {"context": self.page}
        options = {"awaitPromise": True, "target": target}
        said = self.send("script.evaluate", expression=f"JSON.stringify({script})", **options)
        if said["type"] == "exception":
            raise RuntimeError(f"{script}: {said['exceptionDetails']['text']}")
        return json.loads(said["result"].get("value", "null"))

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.value(script)):
            if time.monotonic() > end:
                raise RuntimeError(f"In {PATIENCE:.0f} seconds this did not come: {script}")
            time.sleep(0.2)
        return value


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@contextmanager
def program(*words: str) -> Iterator[None]:
    """A program that runs as long as the block."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(words, **quiet)  # type: ignore[call-overload]
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def until_there(url: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(url).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        except httpx.HTTPStatusError:
            return
        else:
            return


def walk(firefox: Firefox, url: str) -> None:
    """Open, run, scrub and save."""
    firefox.open(f"{url}?model=mnist&n=4&steps=6&run=1")
    firefox.until(f"{STATUS}.startsWith('step 6 / 6')")
    firefox.until(f"{FRAMES} === 7")
    last = firefox.value(PIXELS)
    firefox.value(
        "(() => { const s = document.querySelector('#player [data-part=slider]'); s.value = 0; "
        "s.dispatchEvent(new Event('input', { bubbles: true })); return 1; })()"
    )
    firefox.until(f"{STATUS}.includes('t = 1000')")
    assert firefox.value(PIXELS) != last
    firefox.value(  # what would be saved is kept instead
        "(() => { HTMLAnchorElement.prototype.click = function () { globalThis.saved = "
        "[this.download, this.href.slice(0, 5)]; }; "
        "document.querySelector('#player [data-save=png]').click(); return 1; })()"
    )
    name, scheme = firefox.until("globalThis.saved")
    assert name.startswith("ddpm-mnist")
    assert name.endswith(".png")
    assert scheme in ("blob:", "data:")


def main() -> int:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        print("There is no Firefox here: apt install firefox-esr", file=sys.stderr)
        return 1
    port, driven = free_port(), free_port()
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as profile:
        app = str(Path(__file__).parents[1] / "app.py")
        flags = ("--headless", "--profile", profile, "--remote-debugging-port", str(driven))
        with program(sys.executable, app, "--port", str(port)), program(path, *flags):
            until_there(url)
            until_there(f"http://127.0.0.1:{driven}/")
            with connect(f"ws://127.0.0.1:{driven}/session", max_size=2**26) as socket:
                firefox = Firefox(socket)
                version = firefox.value("navigator.userAgent").rpartition(" ")[2]
                walk(firefox, url)
    print(f"{version}: opened, run, scrubbed and saved.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
