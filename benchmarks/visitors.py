"""Compares three ways to serve many visitors: shared batches, one at a time, or a thread each.

    python -m benchmarks.visitors --model mnist

For each way, the real app runs in a separate process. The visitors are gradio_client connections
that press Generate at the same moment. The last row is for comparison: one visitor makes all the
pictures in one run. Nothing else should be running. Servers that are not being measured are halted,
because an idle one takes a few per cent of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from gradio_client import Client

SERVING = {
    "queue": "one at a time",
    "threads": "a thread each",
    "batched": "shared batches",
}
PATIENCE = 600.0


def serve(how: str) -> None:
    """Run the app in this process until stdin ends, and print its address."""
    import torch

    from ddpm_demo.diffusion import Denoiser
    from ddpm_demo.machine.devices import keep_memory
    from ddpm_demo.ui.app import LAUNCH, build_app
    from ddpm_demo.ui.server import runtime

    keep_memory()
    if how == "batched":
        torch.set_num_threads(1)  # all threads but the one that runs the networks
    else:
        runtime.denoiser = Denoiser
    if how == "queue":
        runtime.RUNS = 1
    _, url, _ = build_app().launch(**LAUNCH, prevent_thread_lock=True, quiet=True)
    print(url, flush=True)
    sys.stdin.read()


class Visit(NamedTuple):
    """Seconds after pressing Generate."""

    first: float
    last: float


class Visitor:
    """A page of the app whose controls can be set, and whose Generate button can be pressed."""

    def __init__(self, url: str) -> None:
        # With verification, each request would load all certificates, on the server's cores.
        self.client = Client(url, verbose=False, ssl_verify=False)
        config = self.client.config
        parts = {part["id"]: part["props"] for part in config["components"]}
        button = next(i for i, props in parts.items() if props.get("elem_id") == "go")
        press = next(
            d for d in config["dependencies"] if [button, "click"] in map(list, d["targets"])
        )
        self.run = press["id"]
        self.client.endpoints[self.run].is_valid = True  # only the page uses it; clients can't
        # The client fills in the states by itself.
        states = {part["id"] for part in config["components"] if part["type"] == "state"}
        controls = {parts[i]["elem_id"]: parts[i] for i in press["inputs"] if i not in states}
        self.controls = {name: props.get("value") for name, props in controls.items()}
        self.most = controls["n"]["maximum"]

    def generate(self, go: threading.Barrier, **controls: object) -> Visit:
        """Press Generate when all are ready, and wait for the last frame.

        Raises:
            RuntimeError: the run ended without its last frame.
        """
        assert set(controls) <= set(self.controls)
        values = (self.controls | controls).values()
        go.wait()
        start = time.perf_counter()
        job = self.client.submit(*values, fn_index=self.run)
        seen, first, step, done = 0, None, -1, False
        while not done:
            time.sleep(0.02)
            done = job.done()
            now, outputs = time.perf_counter() - start, job.outputs()
            for value in outputs[seen:]:  # a skipped message is no string
                frames = json.loads(value).get("frames") if isinstance(value, str) else None
                if frames:
                    first, step = now if first is None else first, frames[-1]["step"]
            seen = len(outputs)
        if step != controls["steps"]:
            raise RuntimeError(
                f"A run ended at step {step} of {controls['steps']}: {job.exception()}"
            )
        return Visit(first, now)


def visit(visitors: list[Visitor], **controls: object) -> tuple[float, list[Visit]]:
    """Let all press Generate at the same moment. Returns the total seconds, and what each saw."""
    go = threading.Barrier(len(visitors) + 1)
    with ThreadPoolExecutor(len(visitors)) as pool:
        jobs = [
            pool.submit(v.generate, go, seed=1000 * k, **controls) for k, v in enumerate(visitors)
        ]
        go.wait()
        start = time.perf_counter()
        seen = [job.result(PATIENCE) for job in jobs]
        return time.perf_counter() - start, seen


@contextmanager
def alone(server: subprocess.Popen[str]) -> Iterator[None]:
    """Run only this server inside the block. All servers are halted before and after."""
    server.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        server.send_signal(signal.SIGSTOP)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def start() -> dict[str, subprocess.Popen[str]]:
    """Start a server for each way to serve."""
    command = [sys.executable, "-m", "benchmarks.visitors", "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return {how: subprocess.Popen([*command, how], **pipes) for how in SERVING}


def stop(servers: dict[str, subprocess.Popen[str]]) -> None:
    for server in servers.values():
        server.send_signal(signal.SIGCONT)
        server.stdin.close()
    for server in servers.values():
        server.wait(30)


def measure(
    servers: dict[str, subprocess.Popen[str]],
    runs: list[tuple[str, str, list[Visitor], dict[str, Any]]],
    rounds: int,
) -> list[list[tuple[float, list[Any]]]]:
    """The seconds of each run in each round. The runs take turns."""
    results: list[list[tuple[float, list[Any]]]] = [[] for _ in runs]
    for _ in range(rounds):
        for found, (_, how, page, controls) in zip(results, runs, strict=True):
            with alone(servers[how]):
                found.append(visit(page, **controls))
    return results


def row(n: int, label: str, pictures: int, column: list[Any], one: float | None) -> str:
    """A row of the table. `one` is the time of one run of all pictures, if it was measured."""
    seconds = statistics.median(took for took, _ in column)
    seen = [v for _, visits in column for v in visits]
    first, last = [v.first for v in seen], [v.last for v in seen]
    cells = [percentile(x, part) for x in (first, last) for part in (0.5, 0.95)]
    share = f"{one / seconds:.0%}" if one else "–"
    head = f"| {n} | {label} | {n * pictures / seconds:.1f} | {share} | "
    return head + " | ".join(f"{c:.2f}" for c in cells) + " |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default="mnist")
    p.add_argument("--visitors", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    p.add_argument("--pictures", type=int, default=4, help="of each visitor")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--rounds", type=int, default=3, help="the ways of serving take turns")
    p.add_argument("--serve", choices=SERVING, help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.serve:
        return serve(o.serve)

    servers = start()
    try:
        compare(servers, o)
    finally:
        stop(servers)


def compare(servers: dict[str, subprocess.Popen[str]], o: argparse.Namespace) -> None:
    """Print the table."""
    urls = {how: server.stdout.readline().strip() for how, server in servers.items()}
    pages = {how: [Visitor(url) for _ in range(max(o.visitors))] for how, url in urls.items()}
    each = {"model": o.model, "steps": o.steps, "n": o.pictures}
    for how, page in pages.items():  # loads the model, and learns the size of batches
        with alone(servers[how]):
            visit(page[:1], **each)
            visit(page, **each | {"steps": 5})
    print(f"{o.pictures} pictures of {o.model} each, {o.steps} steps; seconds\n")
    print("| visitors | served | images/s | of one run | first frame p50 | p95 | last p50 | p95 |")
    print("| --: | :-- " + "| --: " * 6 + "|")
    for n in o.visitors:
        runs = [(label, how, pages[how][:n], each) for how, label in SERVING.items()]
        one = pages["batched"][:1]
        if n * o.pictures <= one[0].most:
            runs.append(("one run of all", "batched", one, each | {"n": n * o.pictures}))
        columns = measure(servers, runs, o.rounds)
        whole = statistics.median(took for took, _ in columns[-1])
        known = whole if len(runs) > len(SERVING) else None
        for (label, *_), column in zip(runs, columns, strict=True):
            print(row(n, label, o.pictures, column, known))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
