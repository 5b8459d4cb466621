"""UniPC: a predictor and a corrector that share one call of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.samplers.shared import (
    at_floor,
    coefficients,
    extrapolation,
    half_log_snr,
    line,
    toward,
)
from ddpm_demo.diffusion.schedule import Noise
from ddpm_demo.diffusion.walk import Move, Moved, Seen, State, Step, walk


def unipc(
    denoiser: Denoise, x_T: Tensor | State, timesteps: Sequence[int], *, noise: Noise, **way: Any
) -> Iterator[Step]:
    """UniPC of order 2 with B_2(h) = e^h - 1 (Zhao et al. 2023, theorem 3.1 and corollary 3.2).

    The predictor is DPM-Solver++(2M). Each step shows the predicted x_t and the network's x0_hat
    for it. The corrector then repeats the last move with this x0_hat as well, and the next move
    starts from the corrected x_t. The network is not called again. UniPC adds no noise.
    """
    schedule, lam = denoiser.schedule, half_log_snr(denoiser.schedule)
    x0_mean = extrapolation(schedule)

    def corrected(m: Move) -> Tensor:
        r, x_r, x0_r = m.past[-1]
        assert x_r is not None
        mean = (x0_r + m.x0) / 2
        if len(m.past) == 2 and not at_floor(schedule, m.past[0].t):
            # Take the mean of the parabola through the x0_hat at q, r and t. In units of the step h
            # from r to t, these lie at p, 0 and 1. tau and tau2 are the weighted means of the
            # position and of its square.
            q, _, x0_q = m.past[0]
            h = lam[m.t] - lam[r]
            p = (lam[q] - lam[r]) / h
            tau = -1 / math.expm1(-h) - 1 / h
            tau2 = -1 / math.expm1(-h) - 2 * tau / h
            w_q, w_t = (tau2 - tau) / (p * (p - 1)), (tau2 - p * tau) / (1 - p)
            mean = x0_r + w_q * (x0_q - x0_r) + w_t * (m.x0 - x0_r)
        return toward(schedule, x_r, mean, r, m.t)

    def move(m: Move) -> Moved:
        x = corrected(m) if m.past else m.x
        mean, c = x0_mean(m)
        keep, gain = coefficients(schedule, m.t, m.s)
        name = "x_t corrected" if m.past else "x_t"
        terms = line((name, keep, x), gain, c, m, m.past[-1] if m.past else None)
        return Moved(keep * x + gain * mean, terms, (*m.past[-1:], Seen(m.t, x, m.x0)))

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)
