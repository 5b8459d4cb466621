"""A fine-tuning that is streamed to the page: player, line of progress, loss curve, result."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ddpm_demo.inference.timing import spoken
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import load_tensors
from ddpm_demo.training import finetune as core
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.state import OtherRunError
from ddpm_demo.training.train import Progress
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.bar import bar
from ddpm_demo.ui.finetune.asked import NOTHING_TO_CONTINUE
from ddpm_demo.ui.finetune.eta import Eta, grids_left
from ddpm_demo.ui.finetune.film import Film, header, joined, loss_curve
from ddpm_demo.ui.finetune.plans import Plan
from ddpm_demo.ui.finetune.results import keep
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU
from ddpm_demo.ui.server.work import give_way

CHUNK = 40.0 if settings.ZERO else float("inf")  # seconds of a GPU at a time
EVERY = 0.3  # seconds between two messages
READ = 3.0  # seconds to read a sentence on the batch
STOP = "stop"  # a file in a visitor's folder: the training, maybe in another process, ends
DRAWING = "Drawing 16 pictures with the base model…"
Said = tuple[Any, Any, Any, Any]  # for player, line, curve and what was made
Event = tuple[Progress, player.Pictures | None] | str


def say(screen: Any = None, line: Any = None, curve: Any = None, made: Any = None) -> Said:
    """Update parts of the page. What is not given stays as it is."""
    screen, line, curve = (gr.skip() if part is None else part for part in (screen, line, curve))
    return screen, line, curve, made


@GPU
@friendly
def _before(p: Plan) -> Iterator[player.Pictures]:
    yield np.ascontiguousarray(convert.to_uint8(core.before(*p.load(), denoiser=runtime.denoiser)))


@GPU
@friendly
def _chunk(p: Plan, out: Path, resume: bool) -> Iterator[Event]:
    """Train until the end, Stop, or the end of the time that ZeroGPU gives; pictures come with a
    report. A sentence in between says that the batch was halved."""
    start, stop = time.monotonic(), out.parent / STOP

    def should_stop() -> bool:
        return stop.exists() or time.monotonic() - start > CHUNK

    said: list[str] = []
    options: dict[str, Any] = {"device": p.where(), "should_stop": should_stop}
    options["denoiser"] = runtime.denoiser  # whoever samples meanwhile shares the previews' passes
    try:
        options |= {"resume": resume, "say": said.append}
        for at in core.finetune(*p.load(), p.config, out, **options):
            yield from said
            said.clear()
            pictures = convert.to_uint8(at.report.preview) if at.report else None
            yield (
                dataclasses.replace(at, report=None),
                None if pictures is None else np.ascontiguousarray(pictures),
            )
    except OtherRunError as error:
        changed = "; ".join(error.changes)
        raise ValueError(f"Continue needs the same settings as before: {changed}.") from None


class Session:
    """One run of a visitor, from the press of Start or Continue to its result.

    Args:
        folder: the visitor's own.
        resume: go on from the saved state.
        most: the most seconds.
    """

    before: player.Pictures
    film: Film
    eta: Eta

    def __init__(self, plan: Plan, folder: Path, resume: bool, most: float) -> None:
        self.plan, self.folder, self.resume, self.most = plan, folder, resume, most
        self.files, self.halt = RunFolder(folder / "run"), folder / STOP
        model = runtime.model(plan.source).model.config
        self.shape = (16, model.size, model.size, model.channels)
        self.total, self.late = plan.steps, False
        self.at: Progress | None = None
        self.end, self.sent = time.monotonic() + most, 0.0

    def stream(self) -> Iterator[Said]:
        """Stream the whole run.

        Raises:
            ValueError: there is nothing to continue.
        """
        if not self.resume:
            shutil.rmtree(self.files.path, ignore_errors=True)
        elif not self.files.resumable():
            raise ValueError(NOTHING_TO_CONTINUE)
        yield say(self._header(), DRAWING, None if self.resume else "")
        began = time.monotonic()
        (before,) = _before(self.plan)
        self.eta = Eta(time.monotonic() - began)
        if self.halt.exists():
            yield say(player.note("Stopped."), "Stopped before the first step.")
            return
        self.files.add_preview(0, before)
        first = player.frame(0, None, before, before)
        self.before, self.film = before, Film(self.files.shown, first)
        yield say(joined(self._header(), *self.film.frames))
        yield from self._train()
        yield self._result()

    def _header(self) -> str:
        p = self.plan
        about = {"model": p.title, "lr": p.config.lr}
        return header(self.shape, self.total, p.grids, p.title, about)

    def _train(self) -> Iterator[Said]:
        resume, ended = self.resume, False
        while not ended:
            ended = True  # unless a step is made, and it is not the last
            for event in _chunk(self.plan, self.files.path, resume):
                for _ in give_way():
                    yield say()
                if isinstance(event, str):
                    yield say(line=event)
                    self.sent = time.monotonic() + READ
                    continue
                ended = event[0].done >= 1
                yield from self._step(*event)
            resume = True
            ended = ended or self.halt.exists()

    def _step(self, at: Progress, pictures: player.Pictures | None) -> Iterator[Said]:
        """The updates of the page after a step."""
        self.at = at
        self.eta.saw(pictures is not None)
        if time.monotonic() > self.end:
            self.late = True
            self.halt.touch()
        self.film.log.append((at.step, at.loss))
        if pictures is None and time.monotonic() - self.sent < EVERY:
            return
        told, self.total = self.total, self.plan.total(at.step, at.images)
        screen = None
        if pictures is not None:
            frame = player.frame(at.step, None, self.before, pictures, seconds=at.seconds)
            self.film.add(frame)
            screen = frame
        if told != self.total:  # with a smaller batch there are more steps
            screen = joined(self._header(), *self.film.frames)
        line = None
        if time.monotonic() >= self.sent:
            line, self.sent = bar(self._words(at), at.done), time.monotonic()
        yield say(screen, line, loss_curve(self.film.log))

    def _words(self, at: Progress) -> str:
        words = f"Step {at.step} of {self.total}"
        if at.done >= 1:
            return words
        if self.halt.exists():
            return f"{words}. Stopping after this step…"
        whole = self.plan.steps * self.plan.config.batch_size
        grids = grids_left(self.plan.config, at.images, whole)
        left = spoken(self.eta.to_go(self.total - at.step, grids))
        return f"{words}, about {left} to go"

    def _result(self) -> Said:
        """Save the model as a file, unless it was saved before."""
        at, p, kept = self.at, self.plan, self.files.kept
        step = at.step if at else load_tensors(self.files.state)[1]["step"]
        if kept.exists() and kept.read_text() == str(step):
            raise ValueError(
                f"This run has had its {step} steps. To continue it, ask for more than that."
            )
        made = keep(self.folder, p.source, p.only, step)
        kept.write_text(str(step))
        if at is None or at.done >= 1:
            return say(made=made)
        why = f", after the limit of {spoken(self.most)}" if self.late else ""
        return say(player.note(f"Stopped at step {step}{why}. Continue goes on."), made=made)
