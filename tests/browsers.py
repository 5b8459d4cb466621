"""The page in Firefox and in WebKit: `make browsers`.

Each browser opens the page, runs, scrubs and saves once. This is no part of the suite, as it needs
`apt install firefox-esr` and `apt install webkit2gtk-driver xvfb`; a browser that is not there is
named and left out. Firefox is driven by WebDriver BiDi, which it speaks by itself. WebKitGTK is
driven by its own WebDriver, on a screen that Xvfb pretends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

FIREFOXES = ("firefox-esr", "firefox")
PATIENCE = 90.0  # seconds
FRAMES = "+(document.querySelector('#player [data-frames]')?.dataset.frames || 0)"
STATUS = "document.querySelector('#player [data-part=status]')?.textContent ?? ''"
PIXELS = "document.querySelector('#player canvas').toDataURL()"


class Browser(ABC):
    """A page, and what can be asked of it."""

    @abstractmethod
    def open(self, url: str) -> None:
        """Go to an address."""

    @abstractmethod
    def value(self, script: str) -> Any:
        """What an expression gives in the page."""

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.value(script)):
            if time.monotonic() > end:
                raise RuntimeError(f"In {PATIENCE:.0f} seconds this did not come: {script}")
            time.sleep(0.2)
        return value


class Firefox(Browser):
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
        target = {"context": self.page}
        options = {"awaitPromise": True, "target": target}
        said = self.send("script.evaluate", expression=f"JSON.stringify({script})", **options)
        if said["type"] == "exception":
            raise RuntimeError(f"{script}: {said['exceptionDetails']['text']}")
        return json.loads(said["result"].get("value", "null"))


class WebKit(Browser):
    def __init__(self, driver: httpx.Client) -> None:
        self.driver, self.session = driver, "/session"
        said = self.send("", capabilities={})
        self.session += f"/{said['sessionId']}"

    def send(self, command: str, **values: Any) -> Any:
        """One command of WebDriver, and its result.

        Raises:
            RuntimeError: the browser refused it.
        """
        said = self.driver.post(self.session + command, json=values).json()["value"]
        if isinstance(said, dict) and "error" in said:
            raise RuntimeError(f"{command}: {said['message']}")
        return said

    def open(self, url: str) -> None:
        self.send("/url", url=url)

    def value(self, script: str) -> Any:
        said = self.send("/execute/sync", script=f"return JSON.stringify({script})", args=[])
        return json.loads(said or "null")

    def close(self) -> None:
        self.driver.delete(self.session)


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@contextmanager
def program(*words: str, **environment: str) -> Iterator[None]:
    """A program that runs as long as the block."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(words, env=os.environ | environment, **quiet)  # type: ignore[call-overload]
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


def walk(browser: Browser, url: str) -> None:
    """Open, run, scrub and save."""
    browser.open(f"{url}?model=mnist&n=4&steps=6&run=1")
    browser.until(f"{STATUS}.startsWith('step 6 / 6')")
    browser.until(f"{FRAMES} === 7")
    last = browser.value(PIXELS)
    browser.value(
        "(() => { const s = document.querySelector('#player [data-part=slider]'); s.value = 0; "
        "s.dispatchEvent(new Event('input', { bubbles: true })); return 1; })()"
    )
    browser.until(f"{STATUS}.includes('t = 1000')")
    browser.until(f"{PIXELS} !== {json.dumps(last)}")
    browser.value(  # what would be saved is kept instead
        "(() => { HTMLAnchorElement.prototype.click = function () { globalThis.saved = "
        "[this.download, this.href.slice(0, 5)]; }; "
        "document.querySelector('#player [data-save=png]').click(); return 1; })()"
    )
    name, scheme = browser.until("globalThis.saved")
    assert name.startswith("ddpm-mnist")
    assert name.endswith(".png")
    assert scheme in ("blob:", "data:")


@contextmanager
def firefox(path: str) -> Iterator[Browser]:
    port = free_port()
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--profile", profile, "--remote-debugging-port", str(port))
        with program(path, *flags):
            until_there(f"http://127.0.0.1:{port}/")
            with connect(f"ws://127.0.0.1:{port}/session", max_size=2**26) as socket:
                yield Firefox(socket)


@contextmanager
def screen(path: str) -> Iterator[str]:
    """A screen that nobody sees. Yields what DISPLAY is to be."""
    reads, writes = os.pipe()
    words = (path, "-displayfd", str(writes), "-screen", "0", "1366x768x24", "-nolisten", "tcp")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, pass_fds=(writes,), **quiet) as child:  # type: ignore[call-overload]
        os.close(writes)
        try:
            with os.fdopen(reads) as number:
                yield f":{number.readline().strip()}"
        finally:
            child.terminate()


@contextmanager
def webkit(path: str, xvfb: str) -> Iterator[Browser]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with screen(xvfb) as display, program(path, f"--port={port}", DISPLAY=display):
        until_there(address)
        with httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False) as driver:
            browser = WebKit(driver)
            try:
                yield browser
            finally:
                browser.close()


def browsers() -> Iterator[AbstractContextManager[Browser]]:
    """Those that are installed, one after the other; the others are named."""
    if path := next(filter(None, map(shutil.which, FIREFOXES)), None):
        yield firefox(path)
    else:
        print("There is no Firefox here: apt install firefox-esr", file=sys.stderr)
    path, xvfb = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    if path and xvfb:
        yield webkit(path, xvfb)
    else:
        print("There is no WebKit here: apt install webkit2gtk-driver xvfb", file=sys.stderr)


def main() -> int:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    app = str(Path(__file__).parents[1] / "app.py")
    walked = 0
    with program(sys.executable, app, "--port", str(port)):
        until_there(url)
        for opened in browsers():
            with opened as browser:
                started = time.monotonic()
                walk(browser, url)
                took = time.monotonic() - started
                agent = browser.value("navigator.userAgent")
            print(f"{agent}: opened, run, scrubbed and saved in {took:.0f} s.")
            walked += 1
    return 0 if walked else 1


if __name__ == "__main__":
    sys.exit(main())
