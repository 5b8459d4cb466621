"""Keeps the steps of a run, so that a visitor can look at them, or go on from one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ddpm_demo.diffusion import State, Step, Term

MOST_BYTES = 48 * 2**20  # the most bytes of one run's tensors


class Seen(NamedTuple):
    """A `Step` as it is kept: its tensors are on the CPU, in the dtype of the run."""

    x0: Tensor
    line: tuple[Term, ...]
    state: State

    @property
    def tensors(self) -> list[Tensor]:
        past = [part for seen in self.state.past for part in (seen.x, seen.x0) if part is not None]
        return [self.x0, self.state.x, *past, *(term.tensor for term in self.line)]


@dataclass
class Line:
    """The update from one step to the next, for one picture.

    Attributes:
        terms: the terms of the update; their tensors are (C, H, W).
        after: (C, H, W), the next x_t. It is the sum of the terms, up to rounding.
    """

    terms: list[Term]
    after: Tensor


class Record:
    """The steps of a run by their index. If they take too much memory, it keeps every second step
    only, then every fourth, and so on.

    Args:
        most: the most bytes to hold.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self.steps: dict[int, Seen] = {}
        self.nbytes = 0  # bytes of all tensors; those that steps share count once
        self._stride = 1
        self._copied: dict[int, tuple[Tensor, Tensor]] = {}  # GPU tensors and their copies, by id

    def watch(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Yield the steps, and keep each of them."""
        for step in steps:
            self.add(step)
            yield step

    def add(self, step: Step) -> None:
        if step.state is None or step.index % self._stride:
            return
        if step.index in self.steps:  # the run went on from this step, which is already here
            return
        before = list(self.steps.values())[-1:]
        self.steps[step.index] = seen = self._on_cpu(step)
        self.nbytes += _nbytes([*before, seen]) - _nbytes(before)
        while len(self.steps) > 1 and self.nbytes > self.most:
            self._stride *= 2
            self.steps = {k: seen for k, seen in self.steps.items() if k % self._stride == 0}
            self.nbytes = _nbytes(self.steps.values())

    def past(self, index: int) -> Record:
        """A record with the steps up to `index`, for a run that goes on from there."""
        other = Record(self.most)
        other._stride = self._stride
        other.steps = {k: seen for k, seen in self.steps.items() if k <= index}
        other.nbytes = _nbytes(other.steps.values())
        return other

    def before(self, index: int) -> Seen | None:
        """The last kept step at or before `index`."""
        return self.steps.get(max((k for k in self.steps if k <= index), default=-1))

    def line(self, index: int, picture: int) -> Line | None:
        """How the run went on from step `index`; None if the next step isn't kept."""
        after = self.steps.get(index + 1)
        if after is None or not 0 <= picture < len(after.x0):
            return None
        terms = [term._replace(tensor=term.tensor[picture]) for term in after.line]
        return Line(terms, after.state.x[picture])

    def _on_cpu(self, step: Step) -> Seen:
        """Copy a step to the CPU. A tensor that two steps in a row share is copied once."""
        assert step.state
        copied = {}

        def cpu(tensor: Tensor) -> Tensor:
            if tensor.device.type == "cpu":
                return tensor
            key = id(tensor)
            copied[key] = self._copied.get(key) or (tensor, tensor.cpu())
            return copied[key][1]

        past = tuple(
            seen._replace(x=None if seen.x is None else cpu(seen.x), x0=cpu(seen.x0))
            for seen in step.state.past
        )
        state = dataclasses.replace(step.state, x=cpu(step.state.x), past=past)
        line = tuple(term._replace(tensor=cpu(term.tensor)) for term in step.line)
        found = Seen(cpu(step.x0_hat), line, state)
        self._copied = copied
        return found


def _nbytes(steps: Iterable[Seen]) -> int:
    found = {id(tensor): tensor.nbytes for seen in steps for tensor in seen.tensors}
    return sum(found.values())
