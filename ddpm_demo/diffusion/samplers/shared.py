"""The maths that the fast samplers share: second-order solvers of the probability-flow ODE.

Write alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t). The ODE's exact solution is

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x0_mean      (*)

where x0_mean is the mean of x0_hat along the way, weighted by e^lambda, and lambda_t =
log(alpha_t / sigma_t) is half the log of the signal-to-noise ratio (Lu et al. 2022, DPM-Solver++,
proposition 4.1). If x0_mean is simply the x0_hat at the start of the step, this is DDIM with
eta = 0, a method of first order. The fast samplers estimate x0_mean better, with a second x0_hat:
that of the step before, or a new one at the end of the step.

So all of them work on x0_hat, which the denoiser clips by default. The step to s = 0 is of first
order: lambda_0 is infinite, and with sigma_0 = 0, (*) says x_0 = x0_hat.

Where alpha_bar is at its floor, x_t is pure noise and all lambda are equal. An x0_hat from there
says nothing about the next one, so the samplers ignore it, and take a step of first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ddpm_demo.diffusion.schedule import FLOOR, Schedule
from ddpm_demo.diffusion.walk import Move, Seen, Term


def half_log_snr(schedule: Schedule) -> list[float]:
    """lambda_t for t = 0..T."""
    return (schedule.snr.log() / 2).tolist()


def at_floor(schedule: Schedule, t: int) -> bool:
    """True if x_t is pure noise, so that lambda_t must not be used."""
    return float(schedule.alpha_bar[t]) <= FLOOR


def coefficients(schedule: Schedule, t: int, s: int) -> tuple[float, float]:
    """The coefficients of x_t and x0_mean in (*)."""
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    keep = math.sqrt((1 - ab_s) / (1 - ab_t))
    return keep, math.sqrt(ab_s) - keep * math.sqrt(ab_t)


def toward(schedule: Schedule, x: Tensor, x0_mean: Tensor, t: int, s: int) -> Tensor:
    """Compute x_s by (*)."""
    keep, gain = coefficients(schedule, t, s)
    return keep * x + gain * x0_mean


def extrapolation(schedule: Schedule) -> Callable[[Move], tuple[Tensor, float]]:
    """Make a function that estimates x0_mean (DPM-Solver++, algorithm 2).

    It draws a line through the last x0_hat and this one, and takes its value at the middle of the
    step, measured in lambda. It returns x0_mean = x0_hat + c (x0_hat - last x0_hat), and c. At the
    first and the final step, and after the floor of alpha_bar, x0_mean is x0_hat and c is 0.
    """
    lam = half_log_snr(schedule)

    def x0_mean(m: Move) -> tuple[Tensor, float]:
        if not m.past or m.s == 0 or at_floor(schedule, m.past[-1].t):
            return m.x0, 0.0
        r, _, x0_r = m.past[-1]
        c = (lam[m.s] - lam[m.t]) / (lam[m.t] - lam[r]) / 2
        return m.x0 + c * (m.x0 - x0_r), c

    return x0_mean


def line(
    kept: tuple[str, float, Tensor], gain: float, c: float, m: Move, before: Seen | None
) -> tuple[Term, ...]:
    """The terms of kept + gain * (x0_hat + c * (x0_hat - x0_hat of the step before))."""
    terms = (Term(*kept), Term("x0_hat", gain * (1 + c), m.x0))
    return (*terms, Term("x0_hat before", -gain * c, before.x0)) if c and before else terms
