"""Does the server keep anything of visitors who have left? It tests stopped runs and uploads.

    python -m benchmarks.soak --runs 200 --uploads 200

The app runs in a separate process with its own temporary folder. Each visitor is a new
gradio_client connection. It presses Generate, presses Stop in the middle, and uploads a picture to
the Forward tab. The benchmark prints what the server holds after a warm-up and at the end, and
exits with 1 if it holds too much. It reads /proc, so it needs Linux.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gradio_client import handle_file
from PIL import Image

from benchmarks.visitors import PATIENCE, Visitor

GROWTH = 0.05  # the memory may grow by this share
QUIET = 15.0  # idle threads have ended after these seconds
GONE = 120.0  # uploads have to be deleted within these seconds


class Page(Visitor):
    """A page that can stop its run and upload a picture."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        config = self.client.config
        picture = next(
            part["id"]
            for part in config["components"]
            if part["props"].get("elem_id") == "forward-picture"
        )
        self.picture = next(
            d["id"] for d in config["dependencies"] if [picture, "input"] in map(list, d["targets"])
        )
        self.client.endpoints[self.picture].is_valid = True

    def generate_and_stop(self, frames: int, **controls: object) -> None:
        """Press Generate, and press Stop after `frames` messages.

        Raises:
            RuntimeError: the run ended by itself.
        """
        job = self.client.submit(*(self.controls | controls).values(), fn_index=self.run)
        until = time.monotonic() + PATIENCE
        while len(job.outputs()) < frames and time.monotonic() < until:
            if job.done():
                raise RuntimeError(f"A run was not stopped: {job.exception()}")
            time.sleep(0.01)
        job.cancel()

    def upload(self, path: Path) -> None:
        """Upload a picture.

        Raises:
            RuntimeError: the page didn't answer with a picture.
        """
        answer = self.client.predict(
            handle_file(path), "", 128, "gaussian", 0, fn_index=self.picture
        )
        if not (isinstance(answer[0], str) and '"picture"' in answer[0]):
            raise RuntimeError(f"An upload was answered by {answer!r:.200}")


class Held(NamedTuple):
    """What the server holds."""

    memory: int  # bytes
    files: int
    bytes: int
    threads: int
    handles: int


def held(pid: int, folder: Path) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    of = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.split()[1:]}
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Held(
        memory=1024 * int(of["VmRSS"]),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        threads=int(of["Threads"]),
        handles=len(os.listdir(f"/proc/{pid}/fd")),
    )


def settled(pid: int, folder: Path, files: int) -> Held:
    """What the server holds once idle threads have ended and at most `files` files are left."""
    time.sleep(QUIET)
    until = time.monotonic() + GONE
    while held(pid, folder).files > files and time.monotonic() < until:
        time.sleep(1)
    return held(pid, folder)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default="mnist")
    p.add_argument("--runs", type=int, default=200, help="runs that are stopped")
    p.add_argument("--uploads", type=int, default=200)
    p.add_argument("--warm-up", type=int, default=20, help="of both, before counting")
    p.add_argument("--pictures", type=int, default=4, help="in a run")
    p.add_argument("--frames", type=int, default=3, help="messages before Stop")
    o = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = Path(place, "server")
        folder.mkdir()
        server = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port)],
            env=os.environ | {"TMPDIR": str(folder)},
            stdout=subprocess.DEVNULL,
        )
        try:
            good = soak(server.pid, f"http://127.0.0.1:{port}/", folder, Path(place), o)
        finally:
            server.terminate()
            server.wait(30)
        left = sum(path.is_file() for path in folder.rglob("*"))
        print(f"After the end of the server: {left} files.")
    sys.exit(not (good and left == 0))


def wait_for(url: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            Page(url)
            return
        except Exception:  # not up yet, in one of many ways
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def soak(pid: int, url: str, folder: Path, place: Path, o: argparse.Namespace) -> bool:
    """Run the test and print its results. Returns True if all limits hold."""
    wait_for(url)
    first = held(pid, folder).files  # the files that the page shows from the start
    rng = np.random.default_rng(0)

    def visit(k: int, run: bool, upload: bool) -> None:
        page = Page(url)
        if run:
            controls = {"model": o.model, "steps": 500, "n": o.pictures, "seed": k}
            page.generate_and_stop(o.frames, **controls)
        if upload:
            path = place / f"{k}.png"
            coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(coarse).resize((640, 480)).save(path)
            page.upload(path)
            path.unlink()
        page.client.close()

    for k in range(o.warm_up):
        visit(k, True, True)
    before = settled(pid, folder, first)
    most = 0
    for k in range(max(o.runs, o.uploads)):
        visit(1000 + k, k < o.runs, k < o.uploads)
        most = max(most, held(pid, folder).files)
    after = settled(pid, folder, first)
    print(
        f"{o.runs} runs of {o.pictures} pictures of {o.model}, each stopped; {o.uploads} uploads\n"
    )
    good = table(before, after, first)
    growth = after.memory / before.memory - 1
    print(
        f"\nMemory {growth:+.1%}; at most {most} files at a time, {first} of them the page's own."
    )
    return good


def table(before: Held, after: Held, first: int) -> bool:
    """Print what the server held before and after. Returns True if all limits hold."""
    growth = after.memory / before.memory - 1
    rows = [
        ("memory (RSS), MB", before.memory / 1e6, after.memory / 1e6, growth < GROWTH),
        ("temporary files", before.files, after.files, after.files <= first),
        ("their bytes, MB", before.bytes / 1e6, after.bytes / 1e6, after.bytes <= before.bytes),
        ("threads", before.threads, after.threads, after.threads <= before.threads),
        ("open handles", before.handles, after.handles, after.handles <= before.handles),
    ]
    print("| | after warm-up | at the end | |")
    print("| :-- | --: | --: | :-- |")
    for name, a, b, good in rows:
        form = ".1f" if isinstance(a, float) else "d"
        print(f"| {name} | {a:{form}} | {b:{form}} | {'good' if good else 'MISSED'} |")
    return all(good for *_, good in rows)


if __name__ == "__main__":
    main()
