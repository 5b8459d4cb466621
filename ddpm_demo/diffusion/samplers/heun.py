"""Heun's method, the sampler of EDM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.samplers.shared import coefficients, half_log_snr, toward
from ddpm_demo.diffusion.schedule import Noise
from ddpm_demo.diffusion.walk import Move, Moved, State, Step, Term, walk

# EDM starts at sigma = 80, a linear schedule near 160, but a cosine schedule at 20,000. At such a
# sigma, the slope at the end of a step would throw x_s far away from all noise and data.
EULER_ABOVE = 200.0


def heun(
    denoiser: Denoise, x_T: Tensor | State, timesteps: Sequence[int], *, noise: Noise, **way: Any
) -> Iterator[Step]:
    """Heun's method in EDM's variables x_t / alpha_t and sigma = sigma_t / alpha_t (Karras et al.
    2022, algorithm 1). It adds no noise.

    A step calls the network twice. The final step and steps above sigma = 200 are Euler steps,
    which call it once. The slope in these variables is eps_hat. The code writes the mean of the two
    slopes as equation (*) of `shared`, which loses no digits where sigma is large.
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
