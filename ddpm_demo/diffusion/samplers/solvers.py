"""The fast samplers: second-order solvers of the probability-flow ODE, and of its SDE.

With alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), the ODE's exact solution is

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x0_mean      (*)

where x0_mean is the mean of x0_hat along the way, weighted by e^lambda, and lambda_t =
log(alpha_t / sigma_t) is half the log of the signal-to-noise ratio (Lu et al. 2022, DPM-Solver++,
proposition 4.1). With x0_hat at the start of the step for x0_mean this is DDIM with eta = 0, of
first order. Each sampler here guesses x0_mean better, from a second x0_hat: the one at the step
before, or one more at the end of the step.

So all of them work on the data prediction, which the denoiser clips unless told not to. The step
to s = 0 is of first order: lambda_0 is infinite, and (*) with sigma_0 = 0 is x_0 = x0_hat.

Arguments are those of `sampling.ddpm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.diffusion.walk import Step, walk

# EDM starts at sigma = 80 and a linear schedule near 160, but a cosine one at 20,000. From there
# the slope at the end of a step, times sigma, throws x_s far out of all noise and data.
EULER_ABOVE = 200.0


def _lambda(schedule: Schedule) -> list[float]:
    """lambda_t for t = 0..T."""
    return (schedule.snr.log() / 2).tolist()


def _toward(schedule: Schedule, x: Tensor, x0_mean: Tensor, t: int, s: int) -> Tensor:
    """x_s by (*)."""
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    keep = math.sqrt((1 - ab_s) / (1 - ab_t))
    return keep * x + (math.sqrt(ab_s) - keep * math.sqrt(ab_t)) * x0_mean


def _extrapolation(schedule: Schedule) -> Callable[[Tensor, int, int], Tensor]:
    """A function of (x0_hat, t, s), to be called at every step: x0_mean as the value at the middle
    of the step, in lambda, of the line through this x0_hat and the last one (DPM-Solver++,
    algorithm 2). It is x0_hat itself at the first step, which has no other, and at the final one.
    """
    lam = _lambda(schedule)
    last: tuple[Tensor, int] | None = None

    def x0_mean(x0: Tensor, t: int, s: int) -> Tensor:
        nonlocal last
        before, last = last, (x0, t)
        if before is None or s == 0:
            return x0
        x0_r, r = before
        return x0 + (lam[s] - lam[t]) / (lam[t] - lam[r]) / 2 * (x0 - x0_r)

    return x0_mean


def dpmpp_2m(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], *, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Adds no noise."""
    x0_mean = _extrapolation(denoiser.schedule)

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        return _toward(denoiser.schedule, x, x0_mean(x0, t, s), t, s)

    return walk(denoiser, x_T, timesteps, move)


def dpmpp_2m_sde(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], *, noise: Noise
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022).

    The SDE's solution for a constant x_0 is the posterior q(x_s | x_t, x_0), so that this is `ddpm`
    with a better x0_hat. As there, the step to 0 adds no noise.
    """
    x0_mean = _extrapolation(denoiser.schedule)

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        a, b, var = denoiser.schedule.posterior(t, s)
        mean = a * x0_mean(x0, t, s) + b * x
        return mean + math.sqrt(var) * noise.like(x) if s else mean

    return walk(denoiser, x_T, timesteps, move)


def unipc(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], *, noise: Noise
) -> Iterator[Step]:
    """UniPC of order 2 with B_2(h) = e^h - 1 (Zhao et al. 2023, theorem 3.1 and corollary 3.2).

    The predictor is DPM-Solver++(2M). Once the network has seen the predicted x_t, which is what
    the step shows, the corrector repeats the last move with that x0_hat as well, and the next move
    starts from there. The network is not asked again. Adds no noise.
    """
    schedule, lam = denoiser.schedule, _lambda(denoiser.schedule)
    x0_mean = _extrapolation(schedule)
    past: list[tuple[Tensor, Tensor, int]] = []  # the last two corrected x, x0_hat, and their t

    def corrected(x0: Tensor, t: int) -> Tensor:
        x_r, x0_r, r = past[-1]
        mean = (x0_r + x0) / 2
        if len(past) == 2:
            # The mean of the parabola through x0_hat at q, r and t. In units of the step h from r
            # to t they lie at p, 0 and 1; tau and tau2 are the means of the place and its square.
            _, x0_q, q = past[0]
            h = lam[t] - lam[r]
            p = (lam[q] - lam[r]) / h
            tau = -1 / math.expm1(-h) - 1 / h
            tau2 = -1 / math.expm1(-h) - 2 * tau / h
            w_q, w_t = (tau2 - tau) / (p * (p - 1)), (tau2 - p * tau) / (1 - p)
            mean = x0_r + w_q * (x0_q - x0_r) + w_t * (x0 - x0_r)
        return _toward(schedule, x_r, mean, r, t)

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        if past:
            x = corrected(x0, t)
        past[:] = [*past[-1:], (x, x0, t)]
        return _toward(schedule, x, x0_mean(x0, t, s), t, s)

    return walk(denoiser, x_T, timesteps, move)


def heun(
    denoiser: Denoise, x_T: Tensor, timesteps: Sequence[int], *, noise: Noise
) -> Iterator[Step]:
    """Heun's method in EDM's variables x_t / alpha_t and sigma = sigma_t / alpha_t (Karras et al.
    2022, algorithm 1). Adds no noise, and asks the network twice a step, but once at the final one
    and above sigma = 200, where the step is Euler's.

    The slope in these variables is eps_hat. To follow the mean of two slopes is (*) with x0_mean as
    below, which loses no digits where sigma is large.
    """
    schedule, lam = denoiser.schedule, _lambda(denoiser.schedule)

    def move(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        x_s = _toward(schedule, x, x0, t, s)
        if s == 0 or lam[t] < -math.log(EULER_ABOVE):
            return x_s
        x0_s = denoiser(x_s, torch.full((len(x),), s)).x0
        return _toward(schedule, x, x0 + math.exp(lam[s] - lam[t]) / 2 * (x0_s - x0), t, s)

    return walk(denoiser, x_T, timesteps, move)
