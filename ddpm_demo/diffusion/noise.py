"""Noise with mean 0 and variance 1. Each picture has its own random generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm_demo.config import NOISES
from ddpm_demo.config.setting import one_of


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw N(0, 1) noise of the given shape, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def laplace(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw Laplace noise of the given shape, on the generator's device.

    Its scale is 1/sqrt(2), so that its variance is 1. DDPM's posterior is exact for Gaussian noise
    only. With Laplace noise, each step has the right mean and variance, but another shape.
    """
    # We subtract two exponentials of rate sqrt(2). The inverse CDF could run into log(0).
    pair = torch.empty(2, *shape, device=generator.device).exponential_(
        math.sqrt(2), generator=generator
    )
    return pair[0] - pair[1]


KINDS: dict[str, Callable[[Sequence[int], torch.Generator], Tensor]] = {
    "gaussian": gaussian,
    "laplace": laplace,
}
assert tuple(KINDS) == NOISES


class Noise:
    """A stream of noise for each picture. So no picture depends on the rest of its batch.

    Args:
        kind: "gaussian" or "laplace".
        seeds: one seed for each picture of the batch. A run with seed s gives picture k the seed
            s + k, so that each picture can also be made alone.

    The generators are always on the CPU, so that a seed gives the same noise on every device.
    """

    def __init__(self, kind: str, seeds: Sequence[int]) -> None:
        one_of("noise", kind, NOISES)
        self.kind, self._draw = kind, KINDS[kind]
        self.drawn = 0  # the number of calls of `draw` so far
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Draw (B, C, H, W) noise in float32 on the CPU.

        Raises:
            ValueError: B is not the number of seeds.
        """
        if shape[0] != len(self):
            raise ValueError(f"Noise has {len(self)} seeds, but the batch has {shape[0]} pictures.")
        self.drawn += 1
        return torch.stack([self._draw(shape[1:], g) for g in self._generators])

    def skip(self, drawn: int, shape: Sequence[int]) -> None:
        """Advance to the state after `drawn` draws of this shape, so that a stopped run can go on.

        Does nothing if there were already as many draws: a branch may come with new noise.
        """
        while self.drawn < drawn:
            self.draw(shape)

    def like(self, x: Tensor) -> Tensor:
        """Draw noise with the shape, device and dtype of x."""
        return self.draw(x.shape).to(x)
