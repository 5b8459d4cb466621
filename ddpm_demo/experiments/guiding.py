"""What does guidance do?: both predictions of the network, their difference over t, and other w.

This is classifier-free guidance (Ho & Salimans 2022, eq. 6). In our code, w = 1 is plain
conditioning. Guidance on an interval of t is by Kynkäänniemi et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import SampleConfig, require
from ddpm_demo.diffusion import At, GuidanceInterval, Intervention, Schedule, split
from ddpm_demo.experiments.asked import Guide
from ddpm_demo.experiments.tools import Panel, Plot, Report, Sheet, Table, Tools, Words, interval
from ddpm_demo.media import convert
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.checkpoint import Checkpoint

N = 4  # pictures in each run
SCALES = (0.0, 1.0, 1.5, 3.0, 6.0)
STRONG = 6.0  # the scale of the run that is guided on an interval
STEPS = 20
SHOWN = (0.0, 0.25, 0.5, 0.75, 0.95)  # the parts of the run at which predictions are shown
EPS_RANGE = 3  # noise is shown from -3 to 3


def cost(asked: Guide, per_call: Callable[[str, int], float]) -> float:
    return (len(SCALES) + 2) * STEPS * per_call(asked.model, 2 * N)


@dataclass
class Answers(Intervention):
    """Records both predictions of the network at each t, and the guided one.

    All are converted to eps, (B, C, H, W).
    """

    schedule: Schedule
    predict: str
    x: Tensor | None = None
    seen: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def edit(self, at: At) -> Tensor:
        self.x = at.x
        return at.x

    def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor:
        assert self.x is not None
        bar = self.schedule.at(self.schedule.alpha_bar, t, self.x)
        a, b, c = (split(r.float(), self.x, bar, self.predict).eps for r in (uncond, cond, raw))
        self.seen[t] = a.cpu(), b.cpu(), c.cpu()
        return raw


@dataclass
class _Course:
    """The runs so far: their pictures, by the name of the run, and the predictions of one run."""

    asked: Guide
    checkpoint: Checkpoint
    tools: Tools
    answers: Answers
    ends: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def label(self) -> int:
        """The number of the class. Only one class is allowed."""
        labels = self.checkpoint.facts.parse_classes(self.asked.label) or ()
        require(len(labels) == 1, "label", self.asked.label, "the name of one class")
        return labels[0]

    @property
    def name(self) -> str:
        return self.checkpoint.classes[self.label]

    def config(self, w: float) -> SampleConfig:
        best = self.checkpoint.best
        steps = min(STEPS, best.start or self.checkpoint.diffusion.T)
        labels, seed = (self.label,), self.asked.seed
        return best.but(n=N, seed=seed, steps=steps, labels=labels, guidance=w)

    def run(self, name: str, w: float, *hooks: Intervention) -> Iterator[float]:
        """Do a run, and yield how much of it is done. Keep its pictures so far under its name."""
        for step in self.tools.generate(self.checkpoint, self.config(w), interventions=hooks):
            self.ends[name] = convert.to_uint8(step.x0_hat)
            yield step.index / step.total
        self.ends[name] = convert.to_uint8(step.x_t)

    @property
    def interval(self) -> str:
        return f"from t = {self.asked.high} to {self.asked.low} alone"


def run(asked: Guide, tools: Tools) -> Iterator[Report]:
    checkpoint = tools.load(asked.model)
    known = bool(checkpoint.classes)
    require(known, "model", asked.model, "one that knows classes, such as mnist or cifar10")
    process = checkpoint.diffusion
    answers = Answers(Schedule.from_config(process), process.predict)
    course = _Course(asked, checkpoint, tools, answers)
    runs: list[tuple[str, float, tuple[Intervention, ...]]] = [
        (f"w = {w:g}", w, (answers,) if w == asked.w else ()) for w in SCALES
    ]
    if asked.w not in SCALES:
        runs.append(("answers", asked.w, (answers,)))
    runs.append((course.interval, STRONG, (GuidanceInterval(asked.low, asked.high),)))
    for k, (name, w, hooks) in enumerate(runs):
        for part in course.run(name, w, *hooks):
            yield Report((k + part) / (len(runs) + 0.01), f"A run: {name}", _panels(course))
    panels = (*_panels(course), _table(course), Words(WORDS))
    yield Report(1, "", panels, _numbers(course))


WORDS = (
    "The network is asked twice in each step: without a class and with it. Guidance goes from the "
    "first answer towards the second, w times as far: ε̂ = without + w (with − without). At w = 0 "
    "the class is ignored, at w = 1 the answer with the class is taken as it is, and above 1 what "
    "makes the class different is exaggerated.",
    "All runs begin with the same noise, so what differs between the columns is w alone.",
)


def _panels(course: _Course) -> tuple[Panel, ...]:
    cells = tuple(course.ends.get(f"w = {w:g}") for w in SCALES)
    title = f"{course.asked.model}, class {course.name}, seed {course.asked.seed}"
    row = Sheet(title, (cells,), columns=tuple(f"w = {w:g}" for w in SCALES))
    part = course.ends.get(course.interval)
    where = (course.ends.get("w = 1"), part, course.ends.get(f"w = {STRONG:g}"))
    columns = ("w = 1", course.interval, "at each t")
    third = Sheet(f"w = {STRONG:g} on an interval, and 1 elsewhere", (where,), columns=columns)
    return (row, *_opened(course), third) if part is not None else (row, *_opened(course))


def _opened(course: _Course) -> tuple[Panel, ...]:
    """Both predictions for the first picture at five t, and the size of their difference over t."""
    seen, ts = course.answers.seen, list(course.answers.seen)
    if len(ts) < 2:
        return ()
    at = sorted({ts[round(part * (len(ts) - 1))] for part in SHOWN}, reverse=True)
    gap = [seen[t][1][:1] - seen[t][0][:1] for t in at]
    most = max(float(g.abs().max()) for g in gap) or 1.0
    rows = (
        tuple(convert.to_uint8(seen[t][0][:1] / EPS_RANGE) for t in at),
        tuple(convert.to_uint8(seen[t][1][:1] / EPS_RANGE) for t in at),
        tuple(convert.to_uint8(g / most) for g in gap),
    )
    words = ("ε̂ without a class", "ε̂ with the class", f"with − without, × {1 / most:.2g}")
    columns = tuple(f"t = {t}" for t in at)
    title = f"What the network answers in the run of w = {course.asked.w:g}, first picture"
    sheet = Sheet(title, rows, words, columns, wide=1)
    found = _lengths(course)
    lines = {
        "mean": (ts, [mean for mean, _ in found.values()]),
        "lower end": (ts, [mean - half for mean, half in found.values()]),
        "upper end": (ts, [mean + half for mean, half in found.values()]),
    }
    note = (
        "Root mean square over the pixels; that of ε is 1. "
        f"Mean of n = {N} pictures, with its 95 % interval."
    )
    plot = line_plot(lines, "t", "")
    return (sheet, Plot("How far the two answers are apart", plot, note))


def _length(x: Tensor) -> tuple[float, float]:
    """Of the root mean squares of pictures (B, C, H, W): their mean, and half of its interval."""
    return interval(x.square().mean((1, 2, 3)).sqrt().tolist())


def _lengths(course: _Course) -> dict[int, tuple[float, float]]:
    """By t, how far the two answers are apart."""
    return {t: _length(b - a) for t, (a, b, _) in course.answers.seen.items()}


def _pixel(course: _Course) -> list[tuple[int, list[float]]]:
    """By t, both predictions and the guided one for the middle pixel of the first picture."""
    found = []
    for t, parts in course.answers.seen.items():
        c, h, w = parts[0].shape[1:]
        found.append((t, [float(part[0, c // 2, h // 2, w // 2]) for part in parts]))
    return found


def _table(course: _Course) -> Table:
    w, rows = course.asked.w, []
    pixels = _pixel(course)
    for t, (without, with_, guided) in pixels[:: max(1, len(pixels) // 5)]:
        gap = with_ - without
        numbers = (without, with_, gap, w * gap, guided)
        rows.append((str(t), *(f"{number:.4f}".replace("-", "−") for number in numbers)))
    head = ("t", "without", "with", "with − without", f"× {w:g}", "ε̂ = without + that")
    return Table("One pixel, the one in the middle of the first picture", head, tuple(rows))


def _numbers(course: _Course) -> dict[str, Any]:
    one = course.ends["w = 1"] / 127.5
    others = {name: end / 127.5 - one for name, end in course.ends.items() if name != "w = 1"}
    far = {name: _length(torch.from_numpy(gap)) for name, gap in others.items()}
    return {
        "w": course.asked.w,
        "length": _lengths(course),
        "pixel": _pixel(course),
        "distance from w = 1": far,
        "n": N,
    }
