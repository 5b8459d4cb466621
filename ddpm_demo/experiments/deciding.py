"""When is it decided?: a classifier reads x0_hat at each t, and new runs go on from five t.

Structure is decided early, and texture late (Raya & Ambrogioni 2023; Biroli et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import SEED_MAX, SampleConfig
from ddpm_demo.diffusion import State
from ddpm_demo.evaluation.classifier import Classifier, judge_of
from ddpm_demo.experiments.asked import Decide
from ddpm_demo.experiments.tools import (
    Hidden,
    Panel,
    Plot,
    Report,
    Sheet,
    Table,
    Tools,
    Words,
    unseen,
    wilson,
)
from ddpm_demo.inference.generate import go_on
from ddpm_demo.media import convert
from ddpm_demo.media.plots import line_plot, stack_plot
from ddpm_demo.models.checkpoint import Checkpoint

N = 16  # continuations from each t
PARTS = (0.9, 0.8, 0.6, 0.4, 0.2)  # the share of the steps that each set of continuations takes
APART = 10_007  # the distance between the seeds of two sets of continuations
CLEAR = 0.5  # a class whose probability never reaches this belongs to "others"


def cost(asked: Decide, per_call: Callable[[str, int], float]) -> float:
    left = sum(round(part * asked.steps) for part in PARTS)
    return asked.steps * per_call(asked.model, 1) + left * per_call(asked.model, N)


@dataclass
class Course:
    """The run of one picture, the classifier's verdict at each step, and its continuations.

    Attributes:
        states: the state at each step.
        verdicts: the (classes,) probabilities for x0_hat at each step.
        guesses: x0_hat at each step, uint8 (1, H, W, C).
        ends: the classes of the continuations and their pictures, by the index of their first step.
    """

    asked: Decide
    checkpoint: Checkpoint
    judge: Classifier
    tools: Tools
    states: list[State] = field(default_factory=list)
    verdicts: list[Tensor] = field(default_factory=list)
    guesses: list[np.ndarray] = field(default_factory=list)
    ends: dict[int, tuple[list[int], np.ndarray]] = field(default_factory=dict)

    @property
    def config(self) -> SampleConfig:
        """The settings of the run. Its class is "any", so that the run itself decides it."""
        best = self.checkpoint.best
        steps = min(self.asked.steps, best.start or self.checkpoint.diffusion.T)
        sampler, seed = self.asked.sampler, self.asked.seed
        return best.but(sampler=sampler, steps=steps, n=1, seed=seed, labels=None, eta=1.0)

    def run(self) -> Iterator[float]:
        """Do the run, and yield how much of it is done."""
        for step in self.tools.generate(self.checkpoint, self.config):
            assert step.state
            self.states.append(step.state)
            self.guesses.append(convert.to_uint8(step.x0_hat))
            self.verdicts.append(self.probabilities(self.guesses[-1])[0])
            yield step.index / step.total

    def probabilities(self, pixels: np.ndarray) -> Tensor:
        """The classifier's probabilities for pictures, (n, classes)."""
        _, logits = self.judge.extract(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        return logits.softmax(1).cpu()

    @property
    def starts(self) -> list[int]:
        """The indices of the steps at which continuations begin."""
        total = len(self.states) - 1
        return sorted({total - max(1, round(part * total)) for part in PARTS})

    def go_on(self, index: int) -> Iterator[float]:
        """Make the continuations of a step. All have the same x_t, but each has new fresh noise."""
        state = self.states[index]
        seed = (self.asked.seed + APART * (index + 1)) % (SEED_MAX - N)
        more = [f"fork={N}:{state.t}:0", f"noise={seed}:{state.t}"]
        run = self.tools.generate
        for step in go_on(self.checkpoint, self.config, [], more, state, run=run):
            yield (step.index - index) / max(1, step.total - index)
        pixels = convert.to_uint8(step.x_t)
        self.ends[index] = self.probabilities(pixels).argmax(1).tolist(), pixels

    @property
    def final(self) -> int:
        """The class that the picture has in the end."""
        return int(self.verdicts[-1].argmax())

    def same(self) -> list[tuple[int, int]]:
        """For each start so far: its t, and how many continuations end in the run's own class."""
        return [(self.states[i].t, labels.count(self.final)) for i, (labels, _) in self.each()]

    def each(self) -> list[tuple[int, tuple[list[int], np.ndarray]]]:
        return sorted(self.ends.items())


def run(asked: Decide, tools: Tools) -> Iterator[Report]:
    checkpoint = tools.load(asked.model)
    course = Course(asked, checkpoint, judge_of(checkpoint), tools)
    for part in course.run():
        yield Report(0.15 * part, "One picture, and what the classifier says of each guess")
    starts = course.starts
    left = [len(course.states) - 1 - i for i in starts]
    for k, index in enumerate(starts):
        t = course.states[index].t
        for part in course.go_on(index):
            done = 0.15 + 0.84 * (sum(left[:k]) + part * left[k]) / sum(left)
            yield Report(done, f"{N} continuations from t = {t}", _panels(course))
    panels = (*_panels(course), _table(course), _words(course), *_pictures(course))
    yield Report(1, "", panels, _numbers(course))


def _panels(course: Course) -> tuple[Panel, ...]:
    """The guesses on the way, the verdicts over t, and the shares so far."""
    at = [*course.starts, len(course.states) - 1]
    names = course.judge.config.classes
    best = [course.verdicts[i].max(0) for i in at]
    sheet = Sheet(
        f"What the network guesses, x̂₀, and what the classifier reads ({course.asked.model}, "
        f"seed {course.asked.seed})",
        (tuple(course.guesses[i] for i in at),),
        columns=tuple(f"t = {course.states[i].t}" for i in at),
        notes=(tuple(f"{names[int(b.indices)]} {100 * float(b.values):.0f} %" for b in best),),
        wide=1,
    )
    return (sheet, _band(course), *_curve(course))


def _band(course: Course) -> Plot:
    """The verdict on x0_hat at each t, as stacked shares of the classes."""
    table = torch.stack(course.verdicts)
    names = course.judge.config.classes
    shown: list[int] = []
    for k in table.amax(0).argsort(descending=True).tolist():
        if k == course.final or (float(table[:, k].max()) >= CLEAR and len(shown) < 6):
            shown.append(k)
    shown.sort(key=lambda k: k != course.final)
    shares = {names[k]: table[:, k].tolist() for k in shown}
    shares["others"] = (1 - table[:, shown].sum(1)).clamp(min=0).tolist()
    ts = [state.t for state in course.states]
    return Plot("The classifier’s verdict on x̂₀", stack_plot(ts, shares, "t"))


def _curve(course: Course) -> tuple[Plot, ...]:
    found = course.same()
    if len(found) < 2:
        return ()
    ts = [t for t, _ in found]
    bounds = [wilson(k, N) for _, k in found]
    lines = {
        "share": (ts, [k / N for _, k in found]),
        "lower end": (ts, [low for low, _ in bounds]),
        "upper end": (ts, [high for _, high in bounds]),
    }
    note = f"Of n = {N} continuations from each t, with the 95 % interval of Wilson."
    return (Plot("Continuations that end in the same class", line_plot(lines, "t", ""), note),)


def _table(course: Course) -> Table:
    names, rows = course.judge.config.classes, []
    for (t, same), (_, (labels, _)) in zip(course.same(), course.each(), strict=True):
        low, high = wilson(same, N)
        others = sorted({names[k] for k in labels if k != course.final})
        share = f"{same} of {N}"
        rows.append((str(t), share, f"{100 * low:.0f} to {100 * high:.0f} %", ", ".join(others)))
    title = f"How many continuations end as {names[course.final]}"
    return Table(title, ("from t", "the same", "95 % interval", "others end as"), tuple(rows))


def _words(course: Course) -> Words:
    """The result of the table in words."""
    name, found = course.judge.config.classes[course.final], course.same()
    bounds = [(t, *wilson(same, N)) for t, same in found]
    alike = [
        f"t = {a} and t = {b}"
        for (a, low, high), (b, least, most) in pairwise(bounds)
        if low <= most and least <= high
    ]
    sure = [t for t, _ in takewhile(lambda row: row[1] >= 0.9 * N, reversed(found))]
    said = (
        f"From t = {sure[-1]} down, at least nine in ten continuations end as {name}. So the class "
        f"of this picture is decided there, as far as {N} continuations can tell."
        if sure
        else f"Even from t = {found[-1][0]}, fewer than nine in ten continuations end as {name}."
    )
    return Words(
        (
            said,
            *((f"Between {', '.join(alike)}: {unseen(N)}.",) if alike else ()),
            "How the picture looks may still change after that. Open the pictures below, and "
            "compare the continuations of a high t with those of a low one.",
        )
    )


def _pictures(course: Course) -> tuple[Panel, ...]:
    names, found = course.judge.config.classes, []
    for index, (labels, pixels) in course.each():
        t = course.states[index].t
        counts = sorted({k: labels.count(k) for k in labels}.items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{names[k]} ({count})" for k, count in counts)
        found.append(Hidden(f"From t = {t}: {said}", (Sheet("", ((pixels,),), wide=8),)))
    return tuple(found)


def _numbers(course: Course) -> dict[str, Any]:
    names: Sequence[str] = course.judge.config.classes
    return {
        "class": names[course.final],
        "n": N,
        "shares": [
            {"t": t, "same": same, "interval": wilson(same, N)} for t, same in course.same()
        ],
        "verdicts": [
            {"t": state.t, "class": names[int(v.argmax())], "probability": float(v.max())}
            for state, v in zip(course.states, course.verdicts, strict=True)
        ],
    }
