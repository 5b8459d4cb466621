"""The forward process q: a picture dissolves into noise, in one jump or step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule


class Noised(NamedTuple):
    """x_t and the noise that made it; both (B, C, H, W)."""

    t: int
    x_t: Tensor
    eps: Tensor


def jump(schedule: Schedule, x_0: Tensor, t: int, noise: Noise) -> Noised:
    """Draw x_t from q(x_t | x_0) (Ho et al. 2020, eq. 4): one eps takes x_0 all the way.

    Args:
        x_0: (B, C, H, W) in [-1, 1].
        t: 0 to T.
    """
    eps = noise.like(x_0)
    return Noised(t, schedule.q_sample(x_0, t, eps), eps)


def chain(schedule: Schedule, x_0: Tensor, noise: Noise) -> Iterator[Noised]:
    """Walk q(x_t | x_{t-1}) for t = 1..T (eq. 2): fresh eps at every step.

    With Gaussian noise x_t has the distribution that `jump` draws from. With Laplace noise it has
    the same mean and variance, but many steps add up to something close to a Gaussian.
    """
    x = x_0
    for t in range(1, schedule.T + 1):
        eps = noise.like(x)
        x = schedule.q_step(x, t, eps)
        yield Noised(t, x, eps)
