"""What all samplers share: the walk down the timesteps, its steps, and its state.

A sampler gives `walk` a function `move`, which takes x_t to x_s. At each timestep, `walk` calls the
network, yields a `Step`, and moves. Interventions can change each of these (see `interventions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise, Prediction
from ddpm_demo.diffusion.schedule import Noise, Schedule


class NoiseSource(Protocol):
    """The part of `noise.Noise` that a walk needs."""

    def like(self, x: Tensor) -> Tensor: ...


class Seen(NamedTuple):
    """A step that a multistep sampler remembers. x is None if the sampler needs only x0_hat."""

    t: int
    x: Tensor | None
    x0: Tensor


class Term(NamedTuple):
    """One term of a sampler's update line: coefficient * tensor."""

    name: str  # such as "x0_hat", "x_t", "eps_hat", "z"
    coefficient: float
    tensor: Tensor


@dataclass(frozen=True)
class State:
    """All that a run needs to go on, besides its settings. It can be pickled.

    Attributes:
        timesteps: the falling timesteps of the whole walk.
        index: the next step starts at timesteps[index]; at the end it is len(timesteps).
        x: (B, C, H, W), x_t at that t, before any edit.
        past: the steps that a multistep sampler remembers.
        drawn: how often the run has drawn noise. `Noise.skip` advances a new stream to this point.
    """

    timesteps: tuple[int, ...]
    index: int
    x: Tensor
    past: tuple[Seen, ...] = ()
    drawn: int = 0

    @property
    def t(self) -> int:
        return (*self.timesteps, 0)[self.index]


@dataclass(frozen=True)
class Step:
    """x_t at one t of the walk, and what the network predicts from it.

    At the first step of a run, t is the first timestep and x_t is pure noise. At the last step,
    index is total and t is 0: x_t is the sample, and x0_hat equals it.

    Attributes:
        index: 0 to total. If an intervention repeats a step, its index is repeated too.
        total: how many times the sampler moves.
        t: the time of x_t, T to 0.
        x_t, x0_hat, eps_hat: (B, C, H, W) tensors.
        line: the terms that the last move added up to x_t. Their sum is x_t up to rounding, before
            any edit. The first step has none.
        state: the run can go on from it, and will repeat this step first.
    """

    index: int
    total: int
    t: int
    x_t: Tensor
    x0_hat: Tensor
    eps_hat: Tensor
    line: tuple[Term, ...] = ()
    state: State | None = None


class Move(NamedTuple):
    """The argument of `move`: x_t, the network's prediction, and the step from t to s.

    `see(x, t)` calls the network again. `past` is what the last move chose to remember.
    """

    x: Tensor
    x0: Tensor
    eps: Tensor
    t: int
    s: int
    past: tuple[Seen, ...]
    see: Callable[[Tensor, int], Prediction]


class Moved(NamedTuple):
    """The result of `move`: x_s, the terms that add up to it, and what the next move needs."""

    x: Tensor
    line: tuple[Term, ...] = ()
    past: tuple[Seen, ...] = ()


@dataclass(frozen=True)
class At:
    """Where a run is. Interventions get it; x is x_t before a move, and x_s after it."""

    index: int
    total: int
    t: int
    s: int
    x: Tensor
    schedule: Schedule
    noise: Any


class StopRun(Exception):
    """`Intervention.on_step` raises it to end a run; the run still yields that step."""


class Intervention:
    """Changes a run. A subclass overrides the methods that it needs; the others change nothing.

    The table in `interventions` says what each method is for. `Denoiser` calls `guidance` and
    `guided`; `walk` calls the others. `guidance`, `guided` and `predicted` are called for each call
    of the network, the others once a step.
    """

    def edit(self, at: At) -> Tensor:
        """Return the x_t that the network will see."""
        return at.x

    def guidance(self, t: int, w: float) -> float:
        """Return the guidance scale at t. With 1, the network is called for the class alone."""
        return w

    def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor:
        """Return the guided prediction. Called only if the guidance scale is not 1.

        Args:
            uncond, cond: the network's outputs without and with the class.
            raw: the usual result, uncond + w (cond - uncond).
        """
        return raw

    def predicted(self, schedule: Schedule, x: Tensor, t: int, seen: Prediction) -> Prediction:
        """Return the prediction to use. `seen` is the network's own, after clipping."""
        return seen

    def aim(self, t: int, s: int) -> int:
        """Return the s that the sampler computes with. The walk itself still goes on to `s`."""
        return s

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        """Return the terms of the update. If the tuple is new, x_s is its sum. at.x is x_t."""
        return line

    def again(self, at: At) -> Tensor | None:
        """Return an x_t from which to repeat the step, or None to go on. at.x is x_s."""
        return None

    def on_step(self, step: Step) -> None:
        """Look at a finished step before the caller gets it. May raise `StopRun`."""


def total(line: Sequence[Term]) -> Tensor:
    """The sum of the terms."""
    first, *rest = (term.coefficient * term.tensor for term in line)
    return sum(rest, start=first)


def walk(
    denoiser: Denoise,
    x_T: Tensor | State,
    timesteps: Sequence[int],
    move: Callable[[Move], Moved],
    *,
    noise: NoiseSource | None = None,
    interventions: Sequence[Intervention] = (),
) -> Iterator[Step]:
    """Yield the step at each t, and then the final one at t = 0.

    Args:
        x_T: (B, C, H, W), where the walk starts. Or the state of another walk: it goes on from
            there, on its own timesteps.
        timesteps: falling, from at most T to at least 1.
        noise: the noise of the run, for its state and for interventions.
        interventions: applied in this order.

    Raises:
        ValueError: the timesteps don't fall, or are outside 1..T. The call itself raises it, not
            the first step.
    """
    if isinstance(x_T, State):
        start = x_T
        if isinstance(noise, Noise):
            noise.skip(start.drawn, start.x.shape)
    else:
        start = State(tuple(timesteps), 0, x_T)
    T, way = denoiser.schedule.T, start.timesteps
    down = all(a > b for a, b in pairwise(way))
    if not way or not down or way[0] > T or way[-1] < 1:
        raise ValueError(
            f"The timesteps are {list(way)}; they have to fall from {T} or less to 1 or more."
        )
    return _Walk(denoiser, move, noise, tuple(interventions)).steps(start)


@dataclass
class _Walk:
    denoiser: Denoise
    move: Callable[[Move], Moved]
    noise: Any
    interventions: tuple[Intervention, ...]

    @property
    def drawn(self) -> int:
        return self.noise.drawn if isinstance(self.noise, Noise) else 0

    def see(self, x: Tensor, t: int) -> Prediction:
        seen = self.denoiser(x, torch.full((len(x),), t))
        for each in self.interventions:
            seen = each.predicted(self.denoiser.schedule, x, t, seen)
        return seen

    def steps(self, start: State) -> Iterator[Step]:
        way, index, x, past = (*start.timesteps, 0), start.index, start.x, start.past
        last, eps = len(way) - 1, x  # this eps is only used if no step is left to walk
        line: tuple[Term, ...] = ()
        while index < last:
            state = State(start.timesteps, index, x, past, self.drawn)
            at = At(index, last, way[index], way[index + 1], x, self.denoiser.schedule, self.noise)
            for each in self.interventions:
                at = replace(at, x=each.edit(at))
            x0, eps = self.see(at.x, at.t)
            step = Step(index, last, at.t, at.x, x0, eps, line, state)
            if self._stops(step):
                yield step
                return
            yield step
            moved = self._moved(at, x0, eps, past)
            x, line, past, index = moved.x, moved.line, moved.past, index + 1
            for each in self.interventions:
                if (back := each.again(replace(at, x=x))) is not None:
                    x, line, past, index = back, (), (), at.index
                    break
        state = State(start.timesteps, last, x, past, self.drawn)
        step = Step(last, last, 0, x, x, eps, line, state)
        self._stops(step)
        yield step

    def _moved(self, at: At, x0: Tensor, eps: Tensor, past: tuple[Seen, ...]) -> Moved:
        s = at.s
        for each in self.interventions:
            s = each.aim(at.t, s)
        moved = self.move(Move(at.x, x0, eps, at.t, s, past, self.see))
        for each in self.interventions:
            line = each.line(at, moved.line)
            if line is not moved.line:
                moved = moved._replace(x=total(line), line=line)
        return moved

    def _stops(self, step: Step) -> bool:
        try:
            for each in self.interventions:
                each.on_step(step)
        except StopRun:
            return True
        return False
