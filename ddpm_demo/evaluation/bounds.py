"""How many bits a model needs to store a picture: the variational bound of Ho et al. 2020, eq. 5.

    L = L_T + sum over t = 2..T of L_{t-1} + L_0, here in bits per dimension (bits/dim)

L_T is the KL divergence of q(x_T | x_0) from N(0, I). L_{t-1} is the KL divergence of the posterior
q(x_{t-1} | x_t, x_0) (eq. 7) from the model's N(mu, sigma_t^2 I). The model's mean is the
posterior's mean with x0_hat in place of x_0. L_0 is the cost to name one of the 256 levels of each
pixel, with a Gaussian that is cut into bins (eq. 13). With this model, a lossless coder would write
L bits for every number of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import SEED_MAX, VARIANCES, number, one_of, require
from ddpm_demo.diffusion import Denoise, Denoiser, Noise, Schedule
from ddpm_demo.models.checkpoint import Checkpoint

BIN = 1 / 255  # half the distance between neighbours of the 256 levels in [-1, 1]
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Bound:
    """The bound so far. Its numbers are means over the `n` finished pictures, NaN before the first.

    With T steps, each term covers one t. With fewer steps, it covers a range of t.

    Attributes:
        n: pictures finished.
        done: the share of the work that is done, 0 to 1.
        first, last: (K,) the first and last t of each term, rising. The first term is t = 1, L_0.
        prior: L_T in bits/dim.
        terms: (K,) bits/dim of L_{t-1}, summed over the t of each term.
        mse: (K,) squared error of x0_hat, in the units of x_0, averaged over the t of each term.
        error: the standard error of the total over the pictures.
    """

    n: int
    done: float
    first: Tensor
    last: Tensor
    prior: float
    terms: Tensor
    mse: Tensor
    error: float

    @property
    def total(self) -> float:
        """L in bits/dim."""
        return self.prior + float(self.terms.sum())

    @property
    def per_t(self) -> Tensor:
        """(K,) bits/dim of a single L_{t-1}, averaged over the t of each term."""
        return self.terms / (self.last - self.first + 1)

    @property
    def curve(self) -> tuple[Tensor, Tensor]:
        """Progressive lossy compression (Ho et al. 2020, section 4.3 and fig. 5).

        Returns:
            Two (K + 1,) lists from t = T to 0. The first has the bits/dim that a receiver needs to
            know x_t. The second has the root mean square error of x0_hat at this t, on the scale of
            0 to 255.
        """
        size = self.last - self.first + 1
        above = self.terms.flip(0).cumsum(0).flip(0) - self.terms
        # A term covers several t. On average, half of its other t lie above a given one.
        rate = self.prior + above + self.per_t * (size - 1) / 2
        rmse = self.mse.sqrt() * 127.5
        total = torch.tensor([self.total], dtype=rate.dtype)
        return torch.cat([rate.flip(0), total]), torch.cat([rmse.flip(0), 0 * total])

    def as_dict(self) -> dict[str, Any]:
        """The bound as a dictionary for JSON."""
        rate, rmse = self.curve
        return {
            "bits_per_dim": self.total,
            "standard_error": self.error,
            "n": self.n,
            "L_T": self.prior,
            "L_0": float(self.terms[0]),
            "first_t": self.first.tolist(),
            "last_t": self.last.tolist(),
            "terms": self.terms.tolist(),
            "rate": rate.tolist(),
            "rmse": rmse.tolist(),
        }


@dataclass(frozen=True)
class BoundConfig:
    """How the bound is computed.

    Attributes:
        steps: calls of the network for each picture, 2 to T; None is every t.
        variance: sigma_t^2 is "beta", or "beta_tilde", the variance of the posterior. For L_0, it
            is beta_tilde_2 in both cases, as in the code of Ho et al., because beta_tilde_1 is 0.
        batch_size: the batch of the network. It may mix pictures and t.
        seed: the seed of noise and t. Picture k gets the same noise and t in any batch.
    """

    steps: int | None = None
    variance: str = "beta_tilde"
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        number("batch_size", self.batch_size, 1, 65_536, whole=True)
        number("seed", self.seed, 0, SEED_MAX, whole=True)
        one_of("variance", self.variance, VARIANCES)


def require_gaussian(checkpoint: Checkpoint) -> None:
    """Raise `ValueError` for a model with other noise, because the bound compares Gaussians."""
    noise = checkpoint.diffusion.noise
    why = "bits/dim compares Gaussians in closed form"
    require(noise == "gaussian", "noise of the model", noise, "gaussian", why)


def model_bound(
    checkpoint: Checkpoint,
    x_0: Tensor,
    config: BoundConfig = BoundConfig(),
    *,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
) -> Iterator[Bound]:
    """The `bound` of a checkpoint, on its device. A model with classes gets the null class.

    Args:
        x_0, config: as for `bound`.
        bf16: run the network under bfloat16 autocast.
        denoiser: makes the denoiser. `batching.BatchedDenoiser` shares its passes with other runs.

    Raises:
        ValueError: the noise is not Gaussian, or the pictures have another shape than the model's;
            or as for `bound`.
    """
    require_gaussian(checkpoint)
    model = checkpoint.model.config
    wanted, shape = (model.channels, model.size, model.size), tuple(x_0.shape[1:])
    require(shape == wanted, "shape of the pictures", shape, f"{wanted}")
    device = next(checkpoint.model.parameters()).device
    asked = denoiser(checkpoint.model, checkpoint.diffusion, bf16=bf16)
    return bound(asked, x_0, config, device=device)


def bound(
    denoiser: Denoise,
    x_0: Tensor,
    config: BoundConfig = BoundConfig(),
    *,
    device: torch.device | str = "cpu",
) -> Iterator[Bound]:
    """Compute the bound picture by picture, and yield it after every batch of the network.

    With fewer `steps` than T, 1..T is cut into this many ranges. They are short at small t, where
    the terms are large, and long at large t. Each picture draws one t from each range, and this t
    counts for the whole range; the mean comes out right. L_0 at t = 1 always has its own range.

    Args:
        x_0: (N, C, H, W) pictures at the 256 levels of [-1, 1].

    Raises:
        ValueError: an argument is wrong. The call itself raises it, not the first step.
    """
    T = denoiser.schedule.T
    steps = T if config.steps is None else config.steps
    number("steps", steps, 2, T, whole=True)
    require(x_0.ndim == 4 and len(x_0) > 0, "number of pictures", len(x_0), "1 or more")
    return _walk(denoiser, x_0, replace(config, steps=steps), torch.device(device))


def _walk(
    denoiser: Denoise, x_0: Tensor, config: BoundConfig, device: torch.device
) -> Iterator[Bound]:
    steps, seed, batch_size = config.steps or 0, config.seed, config.batch_size
    schedule, n = denoiser.schedule, len(x_0)
    last = torch.tensor(schedule.timesteps(steps, "quadratic")[::-1])
    first = torch.cat([torch.ones(1).long(), last[:-1] + 1])
    offset = torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sums = torch.zeros(2, steps, dtype=torch.float64)  # sums of the terms and the squared errors
    priors, totals = torch.empty(2, 0, dtype=torch.float64)
    done = 0
    group = max(1, batch_size // steps)  # pictures that are finished together
    for start in range(0, n, group):
        x = x_0[start : start + group]
        item = torch.arange(len(x) * steps)
        picture, k = item // steps, item % steps
        # From picture to picture, t moves by the golden ratio, which covers each range evenly.
        u = (offset[k] + (start + picture) * GOLDEN) % 1
        t = first[k] + (u * (last - first + 1)[k]).long()
        table = torch.empty(2, len(item), dtype=torch.float64)
        for part in item.split(batch_size):
            # torch uses 32 bits of a seed. Odd factors keep all items apart and seeds unrelated.
            seeds = [
                (seed * 0x85EBCA6B + i * 0x9E3779B1) % 2**32
                for i in (start * steps + part).tolist()
            ]
            x_part = x[picture[part]]
            eps = Noise("gaussian", seeds).draw(x_part.shape)
            x_t = schedule.q_sample(x_part, t[part], eps.to(x_part.dtype))
            x0_hat = denoiser(x_t.to(device), t[part]).x0
            table[:, part] = torch.stack(terms(schedule, x_part, x0_hat, t[part], config.variance))
            done += len(part)
            if part[-1] == item[-1]:
                table = table.reshape(2, len(x), steps)
                table[0] *= last - first + 1
                sums += table.sum(1)
                priors = torch.cat([priors, prior_bits(schedule, x)])
                totals = torch.cat([totals, priors[start:] + table[0].sum(1)])
            finished = len(totals)
            term, mse = sums / finished
            yield Bound(
                finished,
                done / (n * steps),
                first,
                last,
                float(priors.mean()),
                term,
                mse,
                float(totals.std() / math.sqrt(finished)) if finished > 1 else math.nan,
            )


def terms(
    schedule: Schedule, x_0: Tensor, x0_hat: Tensor, t: Tensor, variance: str
) -> tuple[Tensor, Tensor]:
    """L_{t-1} in bits/dim, or L_0 at t = 1, and the mean squared error of x0_hat; (B,) float64.

    The means of both Gaussians are a x_0 + b x_t (eq. 7), one of them with x0_hat. So they differ
    by a (x_0 - x0_hat), and x_t doesn't matter.
    """
    x_0, x0_hat = x_0.cpu().double(), x0_hat.cpu().double()  # not every device has float64
    mse = (x_0 - x0_hat).square().flatten(1).mean(1)
    tilde = schedule.beta_tilde.clone()
    tilde[1] = tilde[2]
    sigma2 = schedule.beta[t] if variance == "beta" else tilde[t]
    alpha_bar = schedule.alpha_bar
    a = alpha_bar[t - 1].sqrt() * schedule.beta[t] / (1 - alpha_bar[t])
    ratio = tilde[t] / sigma2
    nats = (a.square() * mse / sigma2 + ratio - 1 - ratio.log()) / 2
    if len(end := (t == 1).nonzero().flatten()):
        decoded = log_decoder(x_0[end], x0_hat[end], math.sqrt(float(tilde[1])))
        nats[end] = -decoded.flatten(1).mean(1)
    return nats / math.log(2), mse


def prior_bits(schedule: Schedule, x_0: Tensor) -> Tensor:
    """(B,) L_T in bits/dim: the KL divergence of q(x_T | x_0) from N(0, I)."""
    ab = schedule.alpha_bar[-1]
    square = x_0.cpu().double().square().flatten(1).mean(1)
    return (ab * square - ab - torch.log1p(-ab)) / 2 / math.log(2)


def log_decoder(x_0: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """log p(x_0 | x_1) of each pixel, in nats: the mass of N(mean, sigma^2) in its bin (eq. 13).

    The outermost bins reach to infinity. The mass is the difference of two tails. It is computed
    from their logarithms, on the side where they are small, so that it is never rounded to 0.

    Args:
        x_0: float64 pixels at the 256 levels of [-1, 1].
        mean: float64, of the same shape.
    """
    low = torch.where(x_0 < -1 + BIN, -torch.inf, (x_0 - BIN - mean) / sigma)
    high = torch.where(x_0 > 1 - BIN, torch.inf, (x_0 + BIN - mean) / sigma)
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    below, up_to = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return up_to + torch.log(-torch.expm1(below - up_to))
