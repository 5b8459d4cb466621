"""How long a fine-tuning takes: its steps, and the grids of samples on the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ddpm_demo.config import TrainConfig

GRID_PICTURES, GRID_STEPS = 16, 25  # N and STEPS of `training.preview`, which needs torch
WINDOW = 30  # average the time of this many steps


def grids_left(config: TrainConfig, images: int, total: int) -> int:
    """Grids still to come: one at each `preview_every` pictures, and one at the end.

    Args:
        images, total: pictures seen so far, and in the end.
    """
    every = config.preview_every
    return total // every - images // every + (total % every > 0) if images < total else 0


class Eta:
    """Estimates the seconds to go from the steps and grids so far.

    Args:
        grid: the seconds of a grid, as estimated before the first one.
        clock: tells the time in seconds.
    """

    def __init__(self, grid: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None  # of the steps: it also warms up
        self._grids = [grid]

    def saw(self, grid: bool) -> None:
        """Note that a step is over, with a grid or without."""
        now = self._clock()
        took, self._last = now - self._last, now
        if grid:
            self._grids.append(max(0.0, took - self._step()))
        elif self._first is None:
            self._first = took
        else:
            self._steps.append(took)

    def _step(self) -> float:
        if self._steps:
            return sum(self._steps) / len(self._steps)
        return self._first or 0.0

    def to_go(self, steps: int, grids: int) -> float:
        """The seconds for so many steps and grids."""
        known = self._grids[1:] or self._grids
        return steps * self._step() + grids * sum(known) / len(known)
