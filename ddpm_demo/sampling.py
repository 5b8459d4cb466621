"""Samplers: generators that walk the reverse process and yield every step.

All have one signature, so a caller that wants the pictures drains one, and a caller that wants to
show or stop it iterates:

    *_, last = ddpm(denoiser, x_T, schedule.timesteps(50), noise=noise)
    pictures = last.x_t
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .config import SAMPLER_NAMES, VARIANCES, number, one_of
from .denoiser import Denoise
from .noise import Noise


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


def _walk(
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


def ddpm(
    denoiser: Denoise,
    x_T: Tensor,
    timesteps: Sequence[int],
    *,
    noise: Noise,
    variance: str = "beta_tilde",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), on any subset of timesteps.

    Args:
        x_T: (B, C, H, W) noise.
        timesteps: falling, from at most T to at least 1.
        noise: fresh noise for every step but the last, which adds none.
        variance: sigma^2 is "beta", or the posterior's "beta_tilde" (section 3.2).
    """
    one_of("variance", variance, VARIANCES)
    alpha_bar = denoiser.schedule.alpha_bar

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        a, b, var = denoiser.schedule.posterior(t, s)
        mean = a * x0 + b * x  # eq. 7
        if s == 0:
            return mean
        if variance == "beta":
            var = float(1 - alpha_bar[t] / alpha_bar[s])
        return mean + math.sqrt(var) * noise.like(x)

    return _walk(denoiser, x_T, timesteps, move)


def ddim(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], *, noise: Noise, eta: float = 0.0
) -> Iterator[Step]:
    """Denoising diffusion implicit models (Song et al. 2020, eq. 12 and 16).

    eta = 0 is deterministic given x_T; eta = 1 is `ddpm` with beta_tilde. Arguments as for `ddpm`.
    """
    number("eta", eta, 0, 1)
    alpha_bar = denoiser.schedule.alpha_bar

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        ab_t, ab_s = float(alpha_bar[t]), float(alpha_bar[s])
        sigma = eta * math.sqrt((1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s))
        x = math.sqrt(ab_s) * x0 + math.sqrt(max(1 - ab_s - sigma**2, 0.0)) * eps
        return x + sigma * noise.like(x) if sigma else x

    return _walk(denoiser, x_T, timesteps, move)


SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {"ddpm": ddpm, "ddim": ddim}
assert tuple(SAMPLERS) == SAMPLER_NAMES
