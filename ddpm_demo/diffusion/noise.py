"""Noise of zero mean and unit variance, drawn for each picture from a generator of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm_demo.config import NOISES
from ddpm_demo.config.setting import one_of


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """N(0, 1) of the given shape, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def laplace(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Laplace of scale 1/sqrt(2), which has unit variance (that of scale 1 is 2); as `gaussian`.

    The posterior that DDPM samples with is exact for Gaussian noise only; with Laplace noise it has
    the right mean and variance at each step, but another shape.
    """
    # The difference of two exponentials of rate sqrt(2); it has no log(0), unlike the inverse CDF.
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
    """One stream of noise a picture: picture k is the same whatever batch it is in.

    Args:
        kind: "gaussian" or "laplace".
        seeds: one seed for each picture of the batch. A run with seed s gives picture k the seed
            s + k, so that any picture of a batch can be had alone.

    Generators live on the CPU on every device, so that a seed means the same picture everywhere.
    """

    def __init__(self, kind: str, seeds: Sequence[int]) -> None:
        one_of("noise", kind, NOISES)
        self.kind, self._draw = kind, KINDS[kind]
        self.drawn = 0  # how often
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """(B, C, H, W) noise in float32 on the CPU; B has to be the number of seeds."""
        if shape[0] != len(self):
            raise ValueError(f"Noise has {len(self)} seeds, but the batch has {shape[0]} pictures.")
        self.drawn += 1
        return torch.stack([self._draw(shape[1:], g) for g in self._generators])

    def skip(self, drawn: int, shape: Sequence[int]) -> None:
        """Draw until `drawn` draws of this shape are done, so that a run goes on as it would have.
        If there were more already, nothing happens: a branch may bring new noise."""
        while self.drawn < drawn:
            self.draw(shape)

    def like(self, x: Tensor) -> Tensor:
        """Noise shaped like x, on its device and in its dtype."""
        return self.draw(x.shape).to(x)
