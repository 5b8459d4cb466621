"""The forward process q: a picture dissolves into noise, in one jump or step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ddpm_demo.diffusion.schedule import Noise, Schedule


class Noised(NamedTuple):
    """x_t, and the noise eps that was added to get it; both are (B, C, H, W)."""

    t: int
    x_t: Tensor
    eps: Tensor


def jump(schedule: Schedule, x_0: Tensor, t: int, noise: Noise) -> Noised:
    """Draw x_t from q(x_t | x_0) in one jump, with one eps (Ho et al. 2020, eq. 4).

    Args:
        x_0: (B, C, H, W) in [-1, 1].
        t: 0 to T.
    """
    eps = noise.like(x_0)
    return Noised(t, schedule.q_sample(x_0, t, eps), eps)


def chain(schedule: Schedule, x_0: Tensor, noise: Noise) -> Iterator[Noised]:
    """Walk q(x_t | x_{t-1}) for t = 1..T, with a fresh eps at every step (eq. 2).

    With Gaussian noise, x_t has the same distribution as after a `jump`. With Laplace noise, only
    the mean and the variance agree: the sum of many steps comes close to a Gaussian.
    """
    x = x_0
    for t in range(1, schedule.T + 1):
        eps = noise.like(x)
        x = schedule.q_step(x, t, eps)
        yield Noised(t, x, eps)
