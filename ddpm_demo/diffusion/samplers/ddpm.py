"""DDPM's own sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.config import VARIANCES, one_of
from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.schedule import Noise
from ddpm_demo.diffusion.walk import Move, Moved, State, Step, Term, walk


def ddpm(
    denoiser: Denoise,
    x_T: Tensor | State,
    timesteps: Sequence[int],
    *,
    noise: Noise,
    variance: str = "beta_tilde",
    **way: Any,
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), on any subset of the timesteps.

    The last step adds no noise.

    Args:
        variance: sigma^2 is "beta", or "beta_tilde", the variance of the posterior (section 3.2).
    """
    one_of("variance", variance, VARIANCES)
    alpha_bar = denoiser.schedule.alpha_bar

    def move(m: Move) -> Moved:
        a, b, var = denoiser.schedule.posterior(m.t, m.s)
        mean = a * m.x0 + b * m.x  # eq. 7
        line = (Term("x0_hat", a, m.x0), Term("x_t", b, m.x))
        if m.s == 0:
            return Moved(mean, line)
        if variance == "beta":
            var = float(1 - alpha_bar[m.t] / alpha_bar[m.s])
        sigma, z = math.sqrt(var), noise.like(m.x)
        return Moved(mean + sigma * z, (*line, Term("z", sigma, z)))

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)
