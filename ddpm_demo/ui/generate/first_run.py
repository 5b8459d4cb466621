"""The run that the app makes when it starts. New pages show it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ddpm_demo.config import counted
from ddpm_demo.models.zoo import facts
from ddpm_demo.ui.components import player
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runs import runs
from ddpm_demo.ui.server.work import give_way

SEEN = (
    "Noise in, pictures out, in {} of one network. "
    "This run was made on this machine when the app started."
)
EVERY_STEP = 1e6  # messages a second: nothing is sent yet, so nothing has to be left out
EVERYBODY = "everybody"  # whose run it is
_told: dict[str, Any] = {}  # what a page that asks is told: words, or the whole run


def first_run(_: Any = None) -> dict[str, Any]:
    """Tell a page that has shown nothing yet about the first run.

    Returns:
        `words` on how far the run is; or `run` and `frames`, as in the messages of a run, once it
        is there; or nothing, if none is made.
    """
    return _told


def announce() -> None:
    """Say that there will be a run. Call it before the first page asks."""
    _tell(words="The model is being loaded…")


def make(name: str) -> None:
    """Make the run with the model's own settings. Visitors' runs go first."""
    from ddpm_demo.inference.generate import generate
    from ddpm_demo.inference.record import Record
    from ddpm_demo.inference.spec import RunSpec
    from ddpm_demo.inference.updates import updates

    announce()
    try:
        runtime.start(name)
        config, checkpoint = facts(name).best, runtime.model(name)
        record = Record()
        run = generate(checkpoint, config, denoiser=runtime.denoiser)
        steps = record.watch(runtime.timed(name, config, run))
        messages = player.stream(
            _counted(steps),
            panels=player.STEP_PANELS,
            fps=EVERY_STEP,
            title=SEEN.format(counted(config.steps, "step")),
            meta=RunSpec(name, config).to_metadata(checkpoint.classes),
            updates=updates(checkpoint, config),
            id=runs.begin(EVERYBODY, record),
        )
        _tell(**told(messages))
    finally:
        if "words" in _told:
            _tell()


def told(messages: Iterable[Any]) -> dict[str, Any]:
    """Turn the messages of a run into what a page is told."""
    parts = [json.loads(message) for message in messages if isinstance(message, str)]
    return {"run": parts[0]["run"], "frames": [frame for part in parts for frame in part["frames"]]}


def _tell(**what: Any) -> None:
    global _told
    _told = what


def _counted(steps: Iterator[Any]) -> Iterator[Any]:
    for step in steps:
        _tell(words=f"A first run is being made: step {step.index} of {step.total}.")
        yield step
        for _ in give_way():
            pass
