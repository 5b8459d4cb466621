"""How soon the page is up, beside Gradio's own hello-world.

    python -m benchmarks.startup

Each round starts both in processes of their own, one after the other, and takes the seconds until
the page and its configuration have come. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

import httpx

HELLO = (
    "import gradio as gr\n"
    "gr.Interface(lambda name: 'Hello ' + name, 'text', 'text').launch(server_port={port})"
)
PATIENCE = 120.0


def seconds_until_up(command: list[str], port: int) -> float:
    """From the start of a process to its page.

    Raises:
        RuntimeError: the process ended, or its page didn't come in two minutes.
    """
    start = time.perf_counter()
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        while server.poll() is None and time.perf_counter() - start < PATIENCE:
            try:
                httpx.get(f"http://127.0.0.1:{port}/").raise_for_status()
                httpx.get(f"http://127.0.0.1:{port}/config").raise_for_status()
                return time.perf_counter() - start
            except httpx.HTTPError:
                time.sleep(0.02)
    finally:
        server.terminate()
        server.wait()
    raise RuntimeError(f"{' '.join(command[:2])} did not come up.")


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


if __name__ == "__main__":
    main()
