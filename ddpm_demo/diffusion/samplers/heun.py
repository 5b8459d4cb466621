"""Heun's method, as EDM samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.samplers.shared import coefficients, half_log_snr, toward
from ddpm_demo.diffusion.walk import Move, Moved, State, Step, Term, walk

# EDM starts at sigma = 80 and a linear schedule near 160, but a cosine one at 20,000. From there
# the slope at the end of a step, times sigma, throws x_s far out of all noise and data.
EULER_ABOVE = 200.0


def heun(
    denoiser: Denoise, x_T: Tensor | State, timesteps: Sequence[int], *, noise: Noise, **way: Any
) -> Iterator[Step]:
    """Heun's method in EDM's variables x_t / alpha_t and sigma = sigma_t / alpha_t (Karras et al.
    2022, algorithm 1). Adds no noise, and asks the network twice a step, but once at the final one
    and above sigma = 200, where the step is Euler's.

    The slope in these variables is eps_hat. To follow the mean of two slopes is (*) of `shared`
    with x0_mean as below, which loses no digits where sigma is large.
    """
    schedule, lam = denoiser.schedule, half_log_snr(denoiser.schedule)

    def move(m: Move) -> Moved:
        keep, gain = coefficients(schedule, m.t, m.s)
        x_s = toward(schedule, m.x, m.x0, m.t, m.s)
        if m.s == 0 or lam[m.t] < -math.log(EULER_ABOVE):
            return Moved(x_s, (Term("x_t", keep, m.x), Term("x0_hat", gain, m.x0)))
        x0_s, share = m.see(x_s, m.s).x0, math.exp(lam[m.s] - lam[m.t]) / 2
        line = (
            Term("x_t", keep, m.x),
            Term("x0_hat", gain * (1 - share), m.x0),
            Term("x0_hat at s", gain * share, x0_s),
        )
        return Moved(toward(schedule, m.x, m.x0 + share * (x0_s - m.x0), m.t, m.s), line)

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)
