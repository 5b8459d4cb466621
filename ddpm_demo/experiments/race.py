"""Race: all samplers start from the same noise and may call the network equally often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ddpm_demo.config import SAMPLERS, SampleConfig, Sampler, counted
from ddpm_demo.experiments.asked import Race
from ddpm_demo.experiments.tools import (
    Panel,
    Report,
    Sheet,
    Table,
    Tools,
    Words,
    alike,
    interval,
    spoken,
)
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.zoo import available, facts

N = 4  # pictures in each run
REFERENCE, LONG = "dpmpp_2m", 100  # the sampler of the reference, of second order, and its steps
SAME = 0.1  # nobody sees a distance below this, a twentieth of the way from black to white


def cost(asked: Race, per_call: Callable[[str, int], float]) -> float:
    few = students(asked.model)
    calls = len(SAMPLERS) * sum(columns(asked, few)) + sum(map(sum, few.values()))
    return (calls + LONG) * per_call(asked.model, N)


def students(model: str) -> dict[str, tuple[int, ...]]:
    """The shipped models that were distilled from this one, with their numbers of steps."""
    found = {}
    for name in available():
        try:
            info = facts(name).info
        except (OSError, ValueError):  # its files are broken, so nobody can choose it
            continue
        if info.get("few") and dict(info.get("teacher") or {}).get("name") == model:
            found[name] = tuple(sorted(map(int, info["few"])))
    return found


def columns(asked: Race, few: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The numbers of calls: those asked for, and those that the students learned."""
    return tuple(sorted({*asked.calls, *(n for some in few.values() for n in some)}))


@dataclass
class _Course:
    """The runs so far, with their pictures by sampler and number of calls."""

    asked: Race
    checkpoint: Checkpoint
    tools: Tools
    pictures: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    ends: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)
    reference: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.few = students(self.asked.model)
        self.calls = columns(self.asked, self.few)
        self.rows = [*_order(), *self.few]

    def runs(self) -> list[tuple[str, int]]:
        """All runs in order, one column after the other."""
        return [
            (name, n) for n in self.calls for name in self.rows if n in self.few.get(name, (n,))
        ]

    def config(self, sampler: Sampler, calls: int) -> SampleConfig:
        best = self.checkpoint.best
        steps = min(sampler.steps(calls), best.start or self.checkpoint.diffusion.T)
        return best.but(sampler=sampler.name, steps=steps, n=N, seed=self.asked.seed, eta=0.0)

    def run(self, name: str, calls: int) -> Iterator[int]:
        """Do a run, and yield the calls made so far at each step. Keep its last picture."""
        if name in self.few:
            student = self.tools.load(name)
            config = student.best.but(steps=calls, n=N, seed=self.asked.seed)
            for step in self.tools.generate(student, config):
                yield step.index
        else:
            sampler = SAMPLERS[name]
            for step in self.tools.generate(self.checkpoint, self.config(sampler, calls)):
                yield sampler.calls(step.index) if step.index else 0
        self.ends[name, calls] = step.x_t
        self.pictures[name, calls] = convert.to_uint8(step.x_t)

    def distance(self, sampler: str, calls: int) -> tuple[float, float] | None:
        """The root mean square distance from the reference: mean over pictures, and interval."""
        if self.reference is None or _noisy(sampler) or (sampler, calls) not in self.ends:
            return None
        gap = (self.ends[sampler, calls] - self.reference).square().flatten(1).mean(1).sqrt()
        return interval(gap.tolist())

    def sheet(self) -> Sheet:
        keys = [[(name, calls) for calls in self.calls] for name in self.rows]
        notes = []
        for row in keys:
            found = [self.distance(*key) for key in row]
            notes.append(tuple(f"{d[0]:.3f} away" if d else "" for d in found))
        return Sheet(
            f"Four pictures from the same noise, seed {self.asked.seed}",
            tuple(tuple(self.pictures.get(key) for key in row) for row in keys),
            rows=tuple(map(_label, self.rows)),
            columns=tuple(counted(calls, "call") for calls in self.calls),
            notes=tuple(notes),
            wide=N,
        )


def _noisy(name: str) -> bool:
    """True if the run adds noise. DDIM doesn't, because eta is 0 here."""
    return name in SAMPLERS and SAMPLERS[name].adds_noise and name != "ddim"


def _order() -> list[str]:
    """The names of the samplers. Those that add no noise come first."""
    return sorted(SAMPLERS, key=_noisy)


def _label(name: str) -> str:
    if name not in SAMPLERS:
        return f"{name}, a student"
    return SAMPLERS[name].label + (" (adds noise)" if _noisy(name) else "")


def run(asked: Race, tools: Tools) -> Iterator[Report]:
    """Run all samplers, one column after the other, and then the long reference."""
    checkpoint = tools.load(asked.model)
    course = _Course(asked, checkpoint, tools)
    whole = sum(calls for _, calls in course.runs()) + LONG
    done = 0
    for name, calls in course.runs():
        words = f"{_label(name)} with {counted(calls, 'call')}"
        for made in course.run(name, calls):
            yield Report((done + made) / whole, words, (course.sheet(),))
        done += calls
    most = min(LONG, checkpoint.diffusion.T)
    for made in course.run(REFERENCE, most):
        yield Report((done + made) / whole, "The long reference", (course.sheet(),))
    course.reference = course.ends[REFERENCE, most]
    yield Report(1, "", (course.sheet(), *_result(course)), _numbers(course, most))


def _fewest(course: _Course, name: str) -> int | None:
    """The fewest calls after which no difference from the reference can be seen."""
    for calls in course.calls:
        found = course.distance(name, calls)
        if found and found[0] + found[1] < SAME:
            return calls
    return None


def _result(course: _Course) -> tuple[Panel, ...]:
    calls = course.calls
    rows = []
    for name in (name for name in course.rows if not _noisy(name)):
        found = [course.distance(name, c) for c in calls]
        fewest = _fewest(course, name)
        rows.append((_label(name), *(spoken(*d) if d else "" for d in found), str(fewest or "–")))
    note = (
        f"Root mean square difference of pixels, which go from −1 to 1: mean of n = {N} pictures "
        f"with its 95 % interval. The reference is DPM-Solver++ with {LONG} calls from the same "
        f"noise. The last column has the fewest calls whose interval ends below {SAME}."
    )
    table = Table(
        "Distance from a long run",
        ("sampler", *(counted(c, "call") for c in calls), "looks the same from"),
        tuple(rows),
        note,
    )
    words = [
        *_nearest(course),
        "The samplers of the upper rows solve one equation: from the same noise they all lead to "
        "the same picture, and differ in how soon they are there.",
        "Those that add noise draw another picture at each number of steps, so there is no "
        "reference to be near to: judge them by how good their pictures look.",
    ]
    if course.few:
        words.append(
            "A student learned to go the teacher's way in so few calls, its guidance included; the "
            "teacher with guidance asks its network twice a call."
        )
    if known := _measured(course.checkpoint):
        return table, known, Words(tuple(words))
    return table, Words(tuple(words))


def _nearest(course: _Course) -> Iterator[str]:
    """For each number of calls, which sampler is nearest to the long run, and which can't be told
    from it."""
    for calls in course.calls:
        every = {_label(name): course.distance(name, calls) for name in course.rows}
        known = {label: found for label, found in every.items() if found}
        if len(known) > 1:
            yield f"With {counted(calls, 'call')}, {alike(known, N)}"


def _measured(checkpoint: Checkpoint) -> Table | None:
    """A table of the samplers from the model's card, measured before on many samples."""
    found = [row for row in checkpoint.info.get("samplers") or () if row.get("distance")]
    rows = tuple((r["sampler"], str(r["calls"]), f"{r['distance']:.3f}") for r in found)
    note = (
        "From the model's card, not measured now: less is better. There are no intervals with it, "
        "so what differs by little may be the same."
    )
    head = ("sampler", "calls", "distance")
    return Table("Distance of many samples from the data", head, rows, note) if rows else None


def _numbers(course: _Course, most: int) -> dict[str, Any]:
    """The results for JSON."""
    rows = []
    for name, calls in course.ends:
        if (name, calls) == (REFERENCE, most) and most not in course.calls:
            continue
        found = course.distance(name, calls)
        mean, half = found or (None, None)
        rows.append({"sampler": name, "calls": calls, "distance": mean, "interval": half, "n": N})
    return {"runs": rows, "reference": {"sampler": REFERENCE, "calls": most}}
