"""Samplers: generators that walk the reverse process and yield every step.

All have one signature, so a caller that wants the pictures drains one, and a caller that wants to
show or stop it iterates:

    *_, last = ddpm(denoiser, x_T, schedule.timesteps(50), noise=noise)
    pictures = last.x_t
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ddpm_demo.config import SAMPLER_NAMES, VARIANCES, number, one_of
from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.samplers.solvers import dpmpp_2m, dpmpp_2m_sde, heun, unipc
from ddpm_demo.diffusion.walk import Step, walk

__all__ = ["SAMPLERS", "Step", "ddim", "ddpm"]


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

    return walk(denoiser, x_T, timesteps, move)


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

    return walk(denoiser, x_T, timesteps, move)


SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "heun": heun,
    "unipc": unipc,
}
assert tuple(SAMPLERS) == SAMPLER_NAMES
