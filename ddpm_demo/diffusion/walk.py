"""What all samplers share: the walk down the timesteps, its steps, and its state.

A sampler gives `walk` a function `move`, which takes x_t to x_s. `walk` asks the network, yields
the `Step`, moves, and lets interventions change things on the way (see `interventions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise, Prediction
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule


class NoiseSource(Protocol):
    """What a walk needs of `noise.Noise`."""

    def like(self, x: Tensor) -> Tensor: ...


class Seen(NamedTuple):
    """A step that a multistep sampler remembers; x is None where it needs x0_hat alone."""

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
        timesteps: of the whole walk, falling.
        index: the next step goes from timesteps[index]; len(timesteps) at the end.
        x: (B, C, H, W), x_t at that t, before any edit.
        past: the steps that a multistep sampler remembers.
        drawn: how often the run has drawn noise. `Noise.skip` brings a new one to the same place.
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
    """The state x_t at one t of the walk, and what the network sees in it.

    The first step of a run has t = T and pure noise; the last has index == total and t = 0, where
    x_t is the sample and equals x0_hat.

    Attributes:
        index: 0 to total. An intervention may repeat a step, and with it its index.
        total: how many times the sampler moves.
        t: the time of x_t, T to 0.
        x_t, x0_hat, eps_hat: (B, C, H, W) tensors.
        line: the terms whose sum is x_t, up to rounding, as the last move computed it; none at the
            first step. An edit of x_t comes after.
        state: from which the run can go on, again from this step.
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
    """What `move` is given: x_t, what the network sees in it, and where to go.

    `see(x, t)` asks the network again. `past` is what the last move remembered.
    """

    x: Tensor
    x0: Tensor
    eps: Tensor
    t: int
    s: int
    past: tuple[Seen, ...]
    see: Callable[[Tensor, int], Prediction]


class Moved(NamedTuple):
    """What `move` gives: x_s, the terms whose sum it is, and what the next move has to know."""

    x: Tensor
    line: tuple[Term, ...] = ()
    past: tuple[Seen, ...] = ()


@dataclass(frozen=True)
class At:
    """Where a run is, for an intervention: x is x_t before the network's call, x_s after a move."""

    index: int
    total: int
    t: int
    s: int
    x: Tensor
    schedule: Schedule
    noise: Any


class StopRun(Exception):
    """Raised by `Intervention.on_step` to end a run; its step is the last one."""


class Intervention:
    """Changes a run. A subclass has the methods that it needs; the others do nothing.

    The table in `interventions` says who uses which. `guidance` and `guided` are asked by
    `Denoiser`, the others by `walk`. Each method is asked once a step, but `guidance`, `guided` and
    `predicted` once a call of the network.
    """

    def edit(self, at: At) -> Tensor:
        """x_t before the network sees it."""
        return at.x

    def guidance(self, t: int, w: float) -> float:
        """The scale of guidance at t; where it is 1, the network is asked for the class alone."""
        return w

    def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor:
        """The guided answer, from both; only where the scale is not 1. raw is the usual one."""
        return raw

    def predicted(self, schedule: Schedule, x: Tensor, t: int, seen: Prediction) -> Prediction:
        """What the network sees in x, after clipping."""
        return seen

    def aim(self, t: int, s: int) -> int:
        """The s that the sampler computes with; the walk goes to its own s all the same."""
        return s

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        """The terms of the update. If it is another tuple, x_s is its sum; at.x is x_t."""
        return line

    def again(self, at: At) -> Tensor | None:
        """x_t from which to repeat the step, given at.x = x_s; None to go on."""
        return None

    def on_step(self, step: Step) -> None:
        """The finished step, before the caller has it. May raise `StopRun`."""


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
    """Yield the step at each t and the final one.

    Args:
        x_T: (B, C, H, W), where the walk starts; or the state of another walk, which goes on from
            there on the timesteps that it had.
        timesteps: falling, from at most T to at least 1.
        noise: of the run, for its state and for interventions.
        interventions: asked in this order.

    Raises:
        ValueError: the timesteps don't fall, or are outside 1..T. Raised by the call itself.
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
        last, eps = len(way) - 1, x  # eps is another at once, but where nothing is left
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
