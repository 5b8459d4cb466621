"""What the tab "Fine-tune" runs: turns, checks, and a fine-tuning that is streamed."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import itertools
import json
import math
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from ddpm_demo import data
from ddpm_demo.config import TrainConfig, number, one_of, require
from ddpm_demo.devices import here, pick
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.inference.timing import spoken
from ddpm_demo.media import images
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, load_tensors
from ddpm_demo.training import finetune as core
from ddpm_demo.training.run_folder import RunFolder, pace
from ddpm_demo.training.train import Progress
from ddpm_demo.ui.components import player
from ddpm_demo.ui.finetune.results import keep
from ddpm_demo.ui.generate.tab import find
from ddpm_demo.ui.server import disk, runtime, work
from ddpm_demo.ui.server.runtime import GPU, friendly
from ddpm_demo.ui.server.work import data_of, give_way, loading

CHUNK = 40.0 if runtime.ZERO else math.inf  # seconds of a GPU at a time
BATCH_MOST, STEPS_MOST = 2048, 100_000
EVERY = 0.3  # seconds between two messages
ALL = "all of the data"
UNITS = ("steps", "epochs")
STOP = "stop"  # a file in a visitor's folder: the training, maybe in another process, ends
STILL = "Your fine-tuning is still running; stop it before starting another."
WAITS = "Your fine-tuning is waiting for its turn already; Stop takes it back."
PANELS = ("Before: the base model", "Now: the same seeds")
Said = tuple[Any, Any, Any, Any]  # for player, line, curve and what was made


class Turns:
    """Whose fine-tuning waits or runs, by their folders: each visitor has one at most.

    Gradio's queue would let a second one wait as well, and then begin anew.
    """

    def __init__(self) -> None:
        self._waits: dict[str, int] = {}
        self._runs: set[str] = set()
        self._lock, self._tickets = threading.Lock(), itertools.count(1)

    def ask(self, folder: str) -> int:
        """A ticket to begin with.

        Raises:
            ValueError: another one waits or runs.
        """
        with self._lock:
            if folder in self._runs or folder in self._waits:
                raise ValueError(STILL if folder in self._runs else WAITS)
            self._waits[folder] = next(self._tickets)
            return self._waits[folder]

    @contextlib.contextmanager
    def begun(self, folder: str, ticket: int) -> Iterator[bool]:
        """Whether the turn is there; it ends with the block. Not there: it was taken back."""
        with self._lock:
            there = self._waits.get(folder) == ticket
            if there:
                self._runs.add(folder)
                del self._waits[folder]
        try:
            yield there
        finally:
            if there:
                self._runs.discard(folder)

    def leave(self, folder: str) -> bool:
        """Take back what waits. Returns whether anything did."""
        with self._lock:
            return self._waits.pop(folder, None) is not None


turns = Turns()


def classes_of(base: Checkpoint) -> list[str]:
    """Classes that a model can go to, as far as they are known without its data."""
    if base.classes:
        return base.classes
    with contextlib.suppress(CheckpointError):
        return list(load_classifier(base.info.get("dataset") or "cifar10").config.classes)
    return []


@dataclasses.dataclass(frozen=True)
class Plan:
    """A fine-tuning that can be made.

    Attributes:
        source: of the base, for `runtime.model`.
        dataset, only: what it sees; `only` is a class, or None.
        steps: how many there are.
        device: by name, or "auto".
    """

    source: str
    dataset: str
    only: str | None
    config: TrainConfig
    steps: int
    device: str

    def load(self) -> tuple[Checkpoint, data.Images]:
        """Base and pictures, in whatever process this is; they are there already."""
        base = runtime.model(self.source)
        found = data_of(self.dataset, base.model.config.size, base.model.config.channels)
        return base, found.only(self.only) if self.only else found

    def where(self) -> torch.device:
        return runtime.device() if self.device == "auto" else pick(self.device)


def plan(
    local: bool,
    own: Mapping[str, str],
    name: Any,
    dataset: Any,
    only: Any,
    length: Any,
    unit: Any,
    batch: Any,
    lr: Any,
    grids: Any,
    device: Any,
) -> Generator[str, None, Plan]:
    """What the controls, or a raw API call, ask for; lines to show come while the data is loaded.

    Args:
        local: folders of this disk are allowed.
        grids: how many times on the way samples are drawn.

    Raises:
        ValueError: a value that is not allowed, or data that can't be had or doesn't fit.
    """
    one_of("unit of the length", unit, UNITS)
    if unit == "steps":
        number("steps", length, 1, STEPS_MOST, whole=True)
    else:
        number("epochs", length, 0, 10_000, above=True)
    number("batch size", batch, 1, BATCH_MOST, whole=True)
    number("grids", grids, 1, 100, whole=True)
    one_of("device", device, ("auto",) if runtime.ZERO else ("auto", *here()))
    base = find(name, own)
    shape, dataset = base.model.config, str(dataset or "").strip()
    dataset = dataset or str(base.info.get("dataset") or "cifar10")
    found = yield from loading(dataset, shape.size, shape.channels, local=local)
    only = None if only == ALL else str(only)
    found = found.only(only) if only else found
    steps = length if unit == "steps" else math.ceil(length * len(found) / batch)
    number("steps", steps, 1, STEPS_MOST, whole=True)
    values = {"dataset": dataset, "only": only, "batch_size": batch, "lr": lr}
    every = max(1, math.ceil(steps / grids)) * batch
    config = core.settings(base, found, images=steps * batch, preview_every=every, **values)
    return Plan(own.get(name, name), dataset, only, config, steps, device)


@GPU
@friendly
def _timed(p: Plan) -> Iterator[str]:
    """The words for how long it will take, from two steps on this machine."""
    seconds = core.estimate(*p.load(), p.config, device=p.where())
    kind = "CPU" if p.where().type == "cpu" else "GPU"
    yield f"About {spoken(seconds)} on this {kind}, from two steps timed now."


@GPU
@friendly
def _before(p: Plan) -> Iterator[player.Pictures]:
    yield np.ascontiguousarray(images.to_uint8(core.before(*p.load(), denoiser=runtime.denoiser)))


@GPU
@friendly
def _chunk(
    p: Plan, out: Path, resume: bool
) -> Iterator[tuple[Progress, player.Pictures | None] | str]:
    """Train until the end, Stop, or the end of the time that ZeroGPU gives; pictures come with a
    report. A sentence in between says that the batch was halved."""
    start, stop = time.monotonic(), out.parent / STOP

    def should_stop() -> bool:
        return stop.exists() or time.monotonic() - start > CHUNK

    said: list[str] = []
    options: dict[str, Any] = {"device": p.where(), "should_stop": should_stop}
    options["denoiser"] = runtime.denoiser  # whoever samples meanwhile shares the previews' passes
    for at in core.finetune(*p.load(), p.config, out, resume=resume, say=said.append, **options):
        yield from said
        said.clear()
        pictures = np.ascontiguousarray(images.to_uint8(at.report.preview)) if at.report else None
        yield dataclasses.replace(at, report=None), pictures


@friendly
def show_estimate(local: bool, own: Mapping[str, str], name: Any, *controls: Any) -> Iterator[str]:
    """How long it would take."""
    p = yield from plan(local, own, name, *controls)
    yield "Timing two steps…"
    yield from _timed(p)


def loss_curve(log: list[tuple[int, float]]) -> str:
    """The loss so far, a mean over sixtieths of the run so far at the finest."""
    if len(log) < 2:
        return ""
    width = max(1, len(log) // 60)
    parts = [log[i : i + width] for i in range(0, len(log), width)]
    return line_plot(
        [float(part[-1][0]) for part in parts],
        [sum(loss for _, loss in part) / len(part) for part in parts],
        "step",
        "loss",
    )


def ask(folder: str | None) -> tuple[str, int, str]:
    """A visitor's folder, a ticket to begin with, and a line, at the press of a button."""
    folder = work.own_folder(folder)
    try:
        return folder, turns.ask(folder), "Waiting for its turn…"
    except ValueError as error:  # said at once, not when the queue comes to it
        raise gr.Error(str(error), print_exception=False) from None


def stop(folder: str | None, left: int = 0) -> tuple[Any, Any]:
    """Take back what waits, or ask the training to save and end after its step.

    Returns:
        A line, and how often the visitor left the queue.
    """
    if folder and turns.leave(folder):
        return "Taken back: it had not begun.", left % 1000 + 1
    if folder and Path(folder).is_dir():
        (Path(folder) / STOP).touch()
    return gr.skip(), gr.skip()


def run(
    local: bool,
    resume: bool,
    folder: str,
    ticket: int,
    own: Mapping[str, str],
    name: Any,
    *controls: Any,
) -> Iterator[Said]:
    """Stream a fine-tuning: player, line of progress, loss curve, and in the end its `Result`.

    Raises:
        gr.Error: a bad value, or nothing to go on with; the line says so, too.
    """
    known = work.existing(folder)
    with turns.begun(folder, ticket) as there:
        if not there:
            return
        try:
            yield from friendly(_run)(local, resume, known, own, name, *controls)
        except gr.Error as error:
            other = f"{html.escape(str(Path(folder, 'run')))} holds another run:"
            said = error.message.replace(other, "Continue needs the settings of before:")
            yield _say(line=said)
            raise gr.Error(said, print_exception=False) from None


class Film:
    """What was shown of a run, kept beside its state, so that Continue goes on with all of it.

    Attributes:
        frames: of the player; the first one is the base's.
        log: a loss for each step.
    """

    def __init__(self, file: Path, first: str) -> None:
        self._file = file
        self.frames: list[str] = [first]
        self.log: list[tuple[int, float]] = []
        for row in file.read_text().splitlines() if file.exists() else ():
            frame, log = json.loads(row)
            self.frames.append(frame)
            self.log += [(step, loss) for step, loss in log]
        self._told = len(self.log)

    def add(self, frame: str) -> None:
        self.frames.append(frame)
        with self._file.open("a") as file:
            file.write(json.dumps([frame, self.log[self._told :]]) + "\n")
        self._told = len(self.log)


def _say(screen: Any = None, line: Any = None, curve: Any = None, made: Any = None) -> Said:
    screen, line, curve = (gr.skip() if part is None else part for part in (screen, line, curve))
    return screen, line, curve, made


def _run(
    local: bool, resume: bool, folder: Path, own: Mapping[str, str], name: Any, *controls: Any
) -> Iterator[Said]:
    most = runtime.most_seconds(runtime.LANE_MINUTES, 60 if runtime.strangers else math.inf)
    end, out, halt = time.monotonic() + most, folder / "run", folder / STOP
    files = RunFolder(out)
    halt.unlink(missing_ok=True)
    disk.require_room()
    p = yield from work.shown(plan(local, own, name, *controls), lambda line: _say(line=line))
    if resume:
        require(files.resumable(), "run to continue", None, "one of yours: Start")
    else:
        shutil.rmtree(out, ignore_errors=True)
        yield _say(line="Timing two steps…")
        for line in _timed(p):
            yield _say(line=line)
    (before,) = _before(p)
    if halt.exists():
        yield _say(line="Stopped before the first step.")
        return
    files.add_preview(0, before)
    title = f"{name} goes to {p.only or p.dataset}"
    about = {"model": f"{name} to {p.only or p.dataset}", "lr": p.config.lr}
    grids = math.ceil(p.steps * p.config.batch_size / p.config.preview_every)
    film = Film(files.shown, player.frame(0, None, before, before))
    total = p.steps
    yield _say(joined(header(before, total, grids, title, about), *film.frames))
    at, sent, ended, late = None, 0.0, False, False
    while not ended:
        ended = True  # unless a step is made, and it is not the last
        for event in _chunk(p, out, resume):
            for _ in give_way():
                yield _say()
            if isinstance(event, str):
                yield _say(line=event)
                sent = time.monotonic() + 3  # so that it can be read
                continue
            at, pictures = event
            ended = at.done >= 1
            late = late or time.monotonic() > end
            if late:
                halt.touch()
            film.log.append((at.step, at.loss))
            if pictures is None and time.monotonic() - sent < EVERY:
                continue
            told, total = total, math.ceil(p.config.batch_size * p.steps * at.step / at.images)
            line = f"Step {at.step} of {total}, loss {at.loss:.4f}, {at.rate:.0f} pictures/s"
            line += f", about {spoken(at.eta)} to go" if at.done < 1 else ""
            screen = None
            if pictures is not None:
                film.add(player.frame(at.step, None, before, pictures, seconds=at.seconds))
                screen = film.frames[-1]
            if told != total:  # with a smaller batch there are more steps
                screen = joined(header(before, total, grids, title, about), *film.frames)
            shown = runtime.bar(line, at.done) if time.monotonic() >= sent else None
            yield _say(screen, shown, loss_curve(film.log))
            sent = max(sent, time.monotonic())
        resume = True
        ended = ended or halt.exists()
    # What a full disk did not take is kept by the next try.
    step = at.step if at else load_tensors(files.state)[1]["step"]
    new = not files.kept.exists() or files.kept.read_text() != str(step)
    require(new, "steps", p.steps, "more than this run has had: it is at its end")
    made = keep(folder, p.source, p.only, step)
    files.kept.write_text(str(step))
    stopped = at is not None and at.done < 1
    why = f", after the {spoken(most)} that a run may take here" if late else ""
    note = player.note(f"Stopped at step {step}{why}; Continue goes on.") if stopped else None
    yield _say(note, None, None, made)


def header(
    before: player.Pictures, total: int, grids: int, title: str, about: Mapping[str, Any]
) -> str:
    options: dict[str, Any] = {"panels": PANELS, "unit": "step", "fps": pace(grids)}
    meta = {**about, "steps": total}
    return player.header(before.shape, total, title=title, meta=meta, **options)


def joined(opening: str, *frames: str) -> str:
    """One message of several."""
    message = json.loads(opening)
    message["frames"] = [f for text in frames for f in json.loads(text)["frames"]]
    return json.dumps(message)
