"""What the tab "Experiments" does: it runs an experiment, and shows what it yields."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from ddpm_demo.experiments import EXPERIMENTS
from ddpm_demo.experiments.tools import Report, Tools
from ddpm_demo.inference.timing import per_call, spoken
from ddpm_demo.models.checkpoint import save_file
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.ui.components.bar import bar
from ddpm_demo.ui.components.controls import ModelChoice
from ddpm_demo.ui.experiments import view
from ddpm_demo.ui.experiments.asked import asked
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU
from ddpm_demo.ui.server.work import give_way, own_folder, sparing

Said = tuple[Any, Any, Any]  # for the line, the result, and the visitor's folder
EVERY = 0.5  # seconds between two messages: each has all pictures that there are
WAY = 1.0  # seconds between two checks if somebody waits for pictures


def say(line: Any = None, result: Any = None, folder: Any = None) -> Said:
    """Update parts of the page. What is not given stays as it is."""
    line, result, folder = (gr.skip() if part is None else part for part in (line, result, folder))
    return line, result, folder


IDLE = say()  # where Stop may take effect


def most_seconds() -> float:
    """The most seconds of an experiment, because all visitors share the lane."""
    return settings.most_seconds(settings.LANE_MINUTES, 60)


def _source(own: Mapping[str, str], name: str) -> str:
    return own.get(name, name)


def how_long(own: Mapping[str, str], name: Any, *values: Any) -> str:
    """The line below the button: how long it takes, or why it can't be run."""
    try:
        row, wanted = asked(name, values)
        seconds = row.cost(
            wanted, lambda model, n: per_call(runtime.seconds(_source(own, model)), n)
        )
    except (ValueError, OSError, FloatingPointError) as error:
        return html.escape(str(error))
    if seconds > most_seconds():
        return f"About {spoken(seconds)}: more than the limit of {spoken(most_seconds())}."
    return f"About {spoken(seconds)} on this computer."


def run(own: Mapping[str, str], folder: Any, name: Any, *values: Any) -> Iterator[Said]:
    """Run an experiment, and stream the line of progress and what there is to show.

    Raises:
        gr.Error: a value is bad, or the data can't be had. The line says so, too.
    """
    try:
        yield from sparing(friendly(_run)(own, folder, name, *values), IDLE)
    except gr.Error as error:
        yield say(line=error.message)
        raise


def _run(own: Mapping[str, str], folder: Any, name: Any, *values: Any) -> Iterator[Said]:
    row, wanted = asked(name, values)
    folder = own_folder(folder) if row.keeps else None
    limit = time.monotonic() + most_seconds()
    begun, sent, looked = time.monotonic(), 0.0, time.monotonic()
    yield say("Getting ready…", "", folder)
    report, shown = Report(0), ""
    for report in _reports(dict(own), row.name, wanted, folder):
        now = time.monotonic()
        if now > limit:
            raise ValueError(f"Stopped after the limit of {spoken(most_seconds())}.")
        if now - looked > WAY:
            for _ in give_way():
                yield IDLE
            looked = time.monotonic()
        if now - sent < EVERY:
            yield IDLE
            continue
        sent = now
        left = (now - begun) * (1 / report.done - 1) if report.done > 0.02 else 0
        words = html.escape(report.line) + (f", about {spoken(left)} to go" if left else "")
        last, shown = shown, view.panels(row.name, report)
        yield say(bar(words, report.done), None if shown == last else shown)
    yield say("Done.", view.saved(row, wanted, report) + view.panels(row.name, report))


@GPU
@friendly
def _reports(
    own: Mapping[str, str], name: str, wanted: Any, folder: str | None
) -> Iterator[Report]:
    row = EXPERIMENTS[name]
    tools = Tools(
        load=lambda model: runtime.model(_source(own, model)),
        denoiser=runtime.denoiser,
        bf16=runtime.bf16(),
        device=runtime.device(),
        folder=Path(folder) / row.keeps if folder else None,
    )
    yield from row(wanted, tools)


def keep(
    choice: ModelChoice, own: Mapping[str, str], folder: Any, name: Any
) -> tuple[Any, Any, Any]:
    """Add the model that an experiment has made to the visitor's list, and say so in the line.

    Raises:
        gr.Error: there is no model yet.
    """
    row = EXPERIMENTS.get(str(name))
    made = Path(str(folder)) / row.keeps if folder and row and row.keeps else None
    if made is None or not made.is_dir() or not RunFolder(made).resumable():
        raise gr.Error("There is no model yet. Press Run first.", print_exception=False)
    checkpoint = load_checkpoint(made)
    title = f"digits, {checkpoint.info['images']:,} pictures (yours)"
    file = made.parent / f"digits-{checkpoint.info['images']}.safetensors"
    save_file(file, checkpoint)
    updates = choice.add(own, title, str(file))
    line = f"“{html.escape(title)}” is in the model list of Generate."
    return line, updates[choice.own], updates[choice.name]
