"""DPM-Solver++(2M), for the ODE and for the SDE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.samplers.shared import coefficients, extrapolation, line
from ddpm_demo.diffusion.schedule import Noise
from ddpm_demo.diffusion.walk import Move, Moved, Seen, State, Step, Term, walk


def dpmpp_2m(
    denoiser: Denoise, x_T: Tensor | State, timesteps: Sequence[int], *, noise: Noise, **way: Any
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). It adds no noise."""
    x0_mean = extrapolation(denoiser.schedule)

    def move(m: Move) -> Moved:
        mean, c = x0_mean(m)
        keep, gain = coefficients(denoiser.schedule, m.t, m.s)
        terms = line(("x_t", keep, m.x), gain, c, m, m.past[-1] if m.past else None)
        return Moved(keep * m.x + gain * mean, terms, (Seen(m.t, None, m.x0),))

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)


def dpmpp_2m_sde(
    denoiser: Denoise, x_T: Tensor | State, timesteps: Sequence[int], *, noise: Noise, **way: Any
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022).

    For a constant x_0, the SDE's solution is the posterior q(x_s | x_t, x_0). So this sampler is
    `ddpm` with a better x0_hat, and here, too, the step to 0 adds no noise.
    """
    x0_mean = extrapolation(denoiser.schedule)

    def move(m: Move) -> Moved:
        a, b, var = denoiser.schedule.posterior(m.t, m.s)
        guess, c = x0_mean(m)
        mean = a * guess + b * m.x
        terms = line(("x_t", b, m.x), a, c, m, m.past[-1] if m.past else None)
        past = (Seen(m.t, None, m.x0),)
        if not m.s:
            return Moved(mean, terms, past)
        sigma, z = math.sqrt(var), noise.like(m.x)
        return Moved(mean + sigma * z, (*terms, Term("z", sigma, z)), past)

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)
