"""What all samplers share: the `Step` that they yield, and the walk down the timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise


@dataclass(frozen=True)
class Step:
    """The state x_t at one t of the walk, and what the network sees in it.

    The first step of a run has t = T and pure noise; the last has index == total and t = 0, where
    x_t is the sample and equals x0_hat.

    Attributes:
        index: 0 to total.
        total: how many times the sampler moves.
        t: the time of x_t, T to 0.
        x_t, x0_hat, eps_hat: (B, C, H, W) tensors.
    """

    index: int
    total: int
    t: int
    x_t: Tensor
    x0_hat: Tensor
    eps_hat: Tensor


def walk(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], move: Callable[..., Tensor]
) -> Iterator[Step]:
    """Yield the step at each t and the final one; `move(x_t, x0, eps, t, s)` gives x_s."""
    T = denoiser.schedule.T
    down = all(a > b for a, b in pairwise(timesteps))
    if not timesteps or not down or timesteps[0] > T or timesteps[-1] < 1:
        raise ValueError(
            f"The timesteps are {list(timesteps)}; they have to fall from {T} or less to 1 or more."
        )
    x, total = x_T, len(timesteps)
    for index, (t, s) in enumerate(pairwise([*timesteps, 0])):
        x0, eps = denoiser(x, torch.full((len(x),), t))
        yield Step(index, total, t, x, x0, eps)
        x = move(x, x0, eps, t, s)
    yield Step(total, total, 0, x, x, eps)
