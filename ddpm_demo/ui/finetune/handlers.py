"""What the tab "Fine-tune" does: turns, checks, estimates, and recorded runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageSequence

from ddpm_demo.config import one_of
from ddpm_demo.inference import timing
from ddpm_demo.inference.timing import spoken
from ddpm_demo.machine.devices import here
from ddpm_demo.media import convert
from ddpm_demo.models.zoo import facts, models_folder
from ddpm_demo.training import finetune as core
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.controls import find
from ddpm_demo.ui.finetune import asked as words
from ddpm_demo.ui.finetune import link
from ddpm_demo.ui.finetune.asked import Asked, recorded
from ddpm_demo.ui.finetune.eta import GRID_PICTURES, GRID_STEPS
from ddpm_demo.ui.finetune.film import header, joined, loss_curve
from ddpm_demo.ui.finetune.plans import Plan, check, classes_of, plan
from ddpm_demo.ui.finetune.session import STOP, Said, Session, say
from ddpm_demo.ui.finetune.turns import Turns
from ddpm_demo.ui.server import disk, runtime, settings, work
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU

turns = Turns()


# --- turns ----------------------------------------------------------------------------------------


def ask(folder: str | None) -> tuple[str, int, str]:
    """When a button is pressed, give the visitor a folder, a ticket to begin with, and a line."""
    folder = work.own_folder(folder)
    try:
        return folder, turns.ask(folder), "Waiting for its turn…"
    except ValueError as error:  # said at once, not when the queue comes to it
        raise gr.Error(str(error), print_exception=False) from None


def stop(folder: str | None, left: int = 0) -> tuple[Any, Any]:
    """Cancel a fine-tuning that waits, or ask a running one to save and end after its step.

    Returns:
        A line, and how often the visitor left the queue.
    """
    if folder and turns.leave(folder):
        return "Cancelled before it started.", left % 1000 + 1
    if folder and Path(folder).is_dir():
        (Path(folder) / STOP).touch()
        return "Stopping after this step…", gr.skip()
    return gr.skip(), gr.skip()


def rest(folder: str | None) -> tuple[Any, Any, Any]:
    """The states of Start, Stop and Continue while nothing runs."""
    there = bool(folder) and RunFolder(Path(str(folder)) / "run").resumable()
    return (
        gr.update(visible=True),
        gr.update(visible="hidden"),
        gr.update(visible=True, interactive=there),
    )


def run(
    local: bool, resume: bool, folder: str, ticket: int, own: Mapping[str, str], *values: Any
) -> Iterator[Said]:
    """Stream a fine-tuning: player, line of progress, loss curve, and in the end its `Result`.

    Args:
        values: the name of the base, and the fields of `Asked`.

    Raises:
        gr.Error: a value is bad, or there is nothing to continue. The line says so, too.
    """
    known = work.existing(folder)
    with turns.begun(folder, ticket) as there:
        if not there:
            return
        try:
            yield from friendly(_run)(local, resume, known, own, *values)
        except gr.Error as error:
            yield say(line=error.message)
            raise


def _run(
    local: bool, resume: bool, folder: Path, own: Mapping[str, str], name: Any, *values: Any
) -> Iterator[Said]:
    limit = 60 if settings.strangers else math.inf
    most = settings.most_seconds(settings.LANE_MINUTES, limit)
    (folder / STOP).unlink(missing_ok=True)
    disk.require_room()
    checks = plan(local, find(name, own), Asked(*values))
    p = yield from work.shown(checks, lambda line: say(line=line))
    yield from Session(p, folder, resume, most).stream()


# --- before a run ---------------------------------------------------------------------------------


@GPU
@friendly
def _timed(p: Plan) -> Iterator[float]:
    """Time two steps, and estimate the seconds of all."""
    yield core.estimate(*p.load(), p.config, device=p.where())


@friendly
def show_estimate(local: bool, own: Mapping[str, str], name: Any, *values: Any) -> Iterator[str]:
    """How long it would take: its steps, and the grids of samples, of which one comes first."""
    p = yield from plan(local, find(name, own), Asked(*values))
    yield "Timing two steps…"
    (seconds,) = _timed(p)
    calls = min(GRID_STEPS, runtime.model(p.source).diffusion.T)
    grid = calls * timing.per_call(runtime.seconds(p.source), GRID_PICTURES)
    kind = "CPU" if p.where().type == "cpu" else "GPU"
    yield f"About {spoken(seconds + (1 + p.grids) * grid)} on this {kind}."


@friendly
def chosen(own: Mapping[str, str], name: Any, held: Any) -> Iterator[Any]:
    """The classes of a base.

    Args:
        held: the base of a link. Its class stays.
    """
    names = classes_of(find(name, own).checkpoint)
    said = held["values"] if held and held["model"] == name else {}
    yield gr.update(**link.classes(names, said.get("only")))


def query(own: Mapping[str, str], name: Any, *values: Any) -> Any:
    """The address's query for the controls. It stays as it is if they make no run."""
    try:
        selected, asked = find(name, own), Asked(*values)
        check(asked)
    except (ValueError, TypeError, OSError):
        return gr.skip()
    if name in own:  # it is on this page alone
        return ""
    usual = _usual() | {"only": link.usual_class(classes_of(selected.checkpoint))}
    return link.query_of(name, asked, link.USUAL | usual)


def _usual() -> dict[str, Any]:
    """Length, unit and batch that suit this machine."""
    usual = core.GPU_USUAL if runtime.has_gpu() else core.CPU_USUAL
    unit = "epochs" if "epochs" in usual else "steps"
    return {"length": usual[unit], "unit": unit, "batch": usual["batch_size"]}


# --- recorded runs --------------------------------------------------------------------------------


@friendly
def show_recorded(name: Any) -> Iterator[tuple[str, str]]:
    """The player and loss curve of a shipped run. Nothing is computed.

    Raises:
        ValueError: there is no such run.
    """
    one_of("recorded run", name, tuple(recorded()))
    files, info = RunFolder(models_folder() / name), facts(name).info
    with Image.open(files.film) as film:
        sheets = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    log = files.rows()
    grids = [np.ascontiguousarray(convert.cut(sheet, 16, scale=4)) for sheet in sheets]
    last = log[-1]
    title = f"{name}: {last['step']} steps of {info['train']['batch_size']} pictures, "
    title += f"recorded on another machine in {spoken(last['seconds'])}"
    about = {"model": name, "lr": info["train"]["lr"]}
    opening = header(grids[0].shape, last["step"], len(log), title, about)
    at = zip([0, *(row["step"] for row in log)], [0, *(row["seconds"] for row in log)], grids)  # noqa: B905
    frames = [player.frame(step, None, grids[0], grid, seconds=s) for step, s, grid in at]
    yield joined(opening, *frames), loss_curve([(row["step"], row["train"]) for row in log])


@friendly
def first_look(seen: bool, held: Any) -> Iterator[Any]:
    """When the tab is opened for the first time: a recorded run, and what suits this machine, or
    what a link said.

    Yields player, curve and whether the tab was seen; then line, length, unit, batch and devices.
    """
    if seen:
        return
    films = recorded()
    shown: Any = (gr.skip(), gr.skip())
    if films:
        (shown,) = show_recorded("cifar10-ship" if "cifar10-ship" in films else films[0])
    usual = _usual() | (held["values"] if held else {})
    yield (
        *shown,
        True,
        words.GPU if runtime.has_gpu() else words.CPU,
        *(usual[field] for field in ("length", "unit", "batch")),
        gr.update(choices=["auto", *here()]),
    )
