"""Measures how soon the page is up, beside Gradio's hello-world, and what it costs to open.

    python -m benchmarks.startup

Each round starts both, one after the other, in separate processes. It measures the seconds until
the page and its configuration have arrived. Then a browser with an empty cache opens our page while
the server makes its own run. When are its pictures there, how many requests does the page make, and
how many bytes are sent? Nothing else should be running.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

HELLO = (
    "import gradio as gr\n"
    "gr.Interface(lambda name: 'Hello ' + name, 'text', 'text').launch(server_port={port})"
)
PATIENCE = 120.0
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SHOWN = "document.querySelector('#player canvas')?.offsetParent"


def seconds_until_up(command: list[str], port: int) -> float:
    """The seconds from the start of a process until its page is up.

    Raises:
        RuntimeError: the process ended, or its page didn't come within two minutes.
    """
    with running(command, port) as seconds:
        return seconds


@contextmanager
def running(command: list[str], port: int) -> Iterator[float]:
    """Run a server inside the block. Gives the seconds until it was up, and raises as above."""
    start = time.perf_counter()
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        while server.poll() is None and time.perf_counter() - start < PATIENCE:
            try:
                httpx.get(f"http://127.0.0.1:{port}/").raise_for_status()
                httpx.get(f"http://127.0.0.1:{port}/config").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.02)
                continue
            yield time.perf_counter() - start
            return
        raise RuntimeError(f"{' '.join(command[:2])} did not come up.")
    finally:
        server.terminate()
        server.wait()


def opened(command: list[str], port: int) -> dict[str, float]:
    """Open a new page in a browser, as soon as the server answers.

    Returns:
        `first`, the seconds until the page shows the server's own run; `requests`, their number;
        `sent` and `whole`, the bytes of all answers as sent and unpacked.
    """
    from playwright.sync_api import sync_playwright

    with running(command, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 625})
        devtools, found = page.context.new_cdp_session(page), {"requests": 0, "sent": 0, "whole": 0}

        def count(name: str, key: str) -> Callable[[dict[str, int]], None]:
            def add(event: dict[str, int]) -> None:
                found[name] += event.get(key, 0) if key else 1

            return add

        devtools.send("Network.enable")
        devtools.on("Network.requestWillBeSent", count("requests", ""))
        devtools.on("Network.loadingFinished", count("sent", "encodedDataLength"))
        devtools.on("Network.dataReceived", count("whole", "dataLength"))
        start = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function(SHOWN, timeout=1000 * PATIENCE)
        first = time.perf_counter() - start
        browser.close()
    return {"first": first, **found}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=5)
    o = p.parse_args()
    times: list[tuple[float, float]] = []
    for _ in range(o.rounds + 1):  # the first one fills the disk's cache
        with socket.socket() as a, socket.socket() as b:
            a.bind(("127.0.0.1", 0))
            b.bind(("127.0.0.1", 0))
            ports = a.getsockname()[1], b.getsockname()[1]
        hello = [sys.executable, "-c", HELLO.format(port=ports[0])]
        ours = [sys.executable, "app.py", "--port", str(ports[1])]
        times.append((seconds_until_up(hello, ports[0]), seconds_until_up(ours, ports[1])))
    hello_s, ours_s = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(f"Gradio's hello-world {hello_s:.2f} s, our page {ours_s:.2f} s after the start:")
    print(f"{ours_s - hello_s:+.2f} s")
    try:
        seen = opened(ours, ports[1])
    except ImportError:
        print("Without Playwright and Chromium, the page was not opened.")
        return
    print(f"The server's own run is seen {seen['first']:.1f} s after the page is up.")
    print(
        f"A new page makes {seen['requests']:.0f} requests, for {seen['sent'] / 1e6:.2f} MB "
        f"over the line ({seen['whole'] / 1e6:.2f} MB unpacked)."
    )


if __name__ == "__main__":
    main()
