"""The maths that the fast samplers share: second-order solvers of the probability-flow ODE.

With alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), the ODE's exact solution is

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x0_mean      (*)

where x0_mean is the mean of x0_hat along the way, weighted by e^lambda, and lambda_t =
log(alpha_t / sigma_t) is half the log of the signal-to-noise ratio (Lu et al. 2022, DPM-Solver++,
proposition 4.1). With x0_hat at the start of the step for x0_mean this is DDIM with eta = 0, of
first order. Each fast sampler guesses x0_mean better, from a second x0_hat: the one at the step
before, or one more at the end of the step.

So all of them work on x0_hat, which the denoiser clips unless told not to. The step to s = 0 is of
first order: lambda_0 is infinite, and (*) with sigma_0 = 0 is x_0 = x0_hat.

Where alpha_bar is at its floor all lambda are equal, and x_t is noise alone. What was seen there
says nothing about the next x0_hat, so samplers start anew after it, with a step of first order.
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
    """Whether x_t is noise alone, and lambda_t is not to be used."""
    return float(schedule.alpha_bar[t]) <= FLOOR


def coefficients(schedule: Schedule, t: int, s: int) -> tuple[float, float]:
    """The coefficients of x_t and x0_mean in (*)."""
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    keep = math.sqrt((1 - ab_s) / (1 - ab_t))
    return keep, math.sqrt(ab_s) - keep * math.sqrt(ab_t)


def toward(schedule: Schedule, x: Tensor, x0_mean: Tensor, t: int, s: int) -> Tensor:
    """x_s by (*)."""
    keep, gain = coefficients(schedule, t, s)
    return keep * x + gain * x0_mean


def extrapolation(schedule: Schedule) -> Callable[[Move], tuple[Tensor, float]]:
    """A function that guesses x0_mean: the value at the middle of the step, in lambda, of the line
    through this x0_hat and the last one (DPM-Solver++, algorithm 2).

    It returns x0_mean = x0_hat + c (x0_hat - the last one), and c. At the first step, which has no
    other, and at the final one, x0_mean is x0_hat and c is 0.
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
