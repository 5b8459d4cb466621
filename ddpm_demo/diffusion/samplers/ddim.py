"""DDIM, and DDIM inversion: from a picture back to the noise that makes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import number
from ddpm_demo.diffusion.denoiser import Denoise
from ddpm_demo.diffusion.schedule import Noise
from ddpm_demo.diffusion.walk import Move, Moved, State, Step, Term, walk


def ddim(
    denoiser: Denoise,
    x_T: Tensor | State,
    timesteps: Sequence[int],
    *,
    noise: Noise,
    eta: float = 0.0,
    **way: Any,
) -> Iterator[Step]:
    """Denoising diffusion implicit models (Song et al. 2020, eq. 12 and 16).

    Args:
        eta: 0 to 1. With 0, x_T alone decides the picture; 1 is `ddpm` with beta_tilde.
    """
    number("eta", eta, 0, 1)
    alpha_bar = denoiser.schedule.alpha_bar

    def move(m: Move) -> Moved:
        ab_t, ab_s = float(alpha_bar[m.t]), float(alpha_bar[m.s])
        sigma = eta * math.sqrt((1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s))
        signal, rest = math.sqrt(ab_s), math.sqrt(max(1 - ab_s - sigma**2, 0.0))
        x = signal * m.x0 + rest * m.eps
        line = (Term("x0_hat", signal, m.x0), Term("eps_hat", rest, m.eps))
        if not sigma:
            return Moved(x, line)
        z = noise.like(m.x)
        return Moved(x + sigma * z, (*line, Term("z", sigma, z)))

    return walk(denoiser, x_T, timesteps, move, noise=noise, **way)


def invert(
    denoiser: Denoise, x_0: Tensor, timesteps: Sequence[int], *, rounds: int = 1
) -> Iterator[Step]:
    """Find the x_T from which `ddim`, with eta = 0 and these timesteps, makes a given picture.

    Each step of DDIM from t to s is solved for x_t by fixed-point iteration (Pan et al. 2023, AIDI,
    eq. 6). One round is the usual inversion; its error shrinks with the length of the steps. More
    rounds make the inversion exact, if the iteration converges. Use a denoiser that doesn't clip:
    clipping can't be undone.

    Args:
        x_0: (B, C, H, W) in [-1, 1].
        timesteps: falling, as for `ddim`.
        rounds: how often each step calls the network, 1 to 1000.

    Yields:
        The step at each t, rising, with index 1 to total.
    """
    number("rounds", rounds, 1, 1000, whole=True)
    ab, x, s = denoiser.schedule.alpha_bar, x_0, 0
    for index, t in enumerate(reversed(timesteps), start=1):
        ab_t, ab_s, x_s = float(ab[t]), float(ab[s]), x
        for _ in range(rounds):
            eps = denoiser(x, torch.full((len(x),), t)).eps
            x0 = (x_s - math.sqrt(1 - ab_s) * eps) / math.sqrt(ab_s)
            x = math.sqrt(ab_t) * x0 + math.sqrt(1 - ab_t) * eps
        yield Step(index, len(timesteps), t, x, x0, eps)
        s = t
