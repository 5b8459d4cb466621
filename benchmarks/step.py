"""Measures what it costs to show and keep the steps of a run, and to read a pixel or branch.

    python -m benchmarks.step --model cifar10 --steps 20

A run of 16 pictures with this is compared to one without. Runs take turns, and the quickest of each
kind counts, because other work on the machine can only make a run slower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from ddpm_demo.inference.generate import generate, go_on
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.updates import updates
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.ui.components import player
from ddpm_demo.ui.server.runs import pixels, runs


def seconds(run: Callable[[], Iterator[Any]], most: int = 10**9) -> float:
    """Seconds until a run is over, or has yielded `most` messages."""
    start = time.perf_counter()
    for k, _ in enumerate(run(), start=1):
        if k == most:
            break
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    checkpoint = load_checkpoint(o.model)
    config = checkpoint.best.but(steps=o.steps, n=16)

    def plain() -> Iterator[Any]:
        yield from player.stream(generate(checkpoint, config), sparing=True)

    def shown() -> Iterator[Any]:
        record = Record()
        steps = record.watch(generate(checkpoint, config))
        look: dict[str, Any] = {"updates": updates(checkpoint, config)}
        look["id"] = runs.begin("benchmark", record)
        yield from player.stream(steps, panels=player.STEP_PANELS, sparing=True, **look)

    seconds(plain, 2)  # lays out weights
    each = [(seconds(plain), seconds(shown)) for _ in range(o.rounds)]
    before, after = (min(column) for column in zip(*each, strict=True))
    print(f"run with x_t and x0_hat alone   {before:8.3f} s")
    print(f"with eps_hat, z, line and record{after:8.3f} s, {100 * (after / before - 1):+.1f} %")

    record = Record()
    list(record.watch(generate(checkpoint, config)))
    asked = {"run": runs.begin("benchmark", record), "step": o.steps // 2, "picture": 3}
    took = min(seconds(lambda: iter([pixels(asked)])) for _ in range(20))
    print(f"a pixel's numbers               {1000 * took:8.2f} ms")
    state = record.steps[o.steps // 2].state
    more = [f"sampler=ddpm:{state.t}", f"fork=16:{state.t}:3"]

    def branch() -> Iterator[Any]:
        yield from player.stream(go_on(checkpoint, config, [], more, state), sparing=True)

    print(f"first frame of 16 branches      {min(seconds(branch, 1) for _ in range(3)):8.3f} s")


if __name__ == "__main__":
    main()
