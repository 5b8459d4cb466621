"""The variational bound against closed forms, numeric integrals and the entropy of the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm_demo.config import VARIANCES, DiffusionConfig, ModelConfig
from ddpm_demo.diffusion import Denoiser, Prediction, Schedule, split
from ddpm_demo.evaluation.bounds import (
    Bound,
    BoundConfig,
    bound,
    log_decoder,
    model_bound,
    prior_bits,
    terms,
)
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.nn.unet import UNet

LINEAR, COSINE = Schedule.linear(), Schedule.cosine()
SHORT = Schedule.linear(20, 0.01, 0.3)
LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)


class Gaussian:
    """The best denoiser for data N(mu, s^2), pixel by pixel."""

    def __init__(self, schedule: Schedule, mu: float, s: float) -> None:
        self.schedule, self.mu, self.s = schedule, mu, s

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        ab = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        gain = self.s**2 * ab.sqrt() / (ab * self.s**2 + 1 - ab)
        return split(self.mu + gain * (x_t - ab.sqrt() * self.mu), x_t, ab, "x0")


def drain(denoiser, x_0, **options) -> Bound:
    *_, last = bound(denoiser, x_0, BoundConfig(**options))
    return last


def normal(n: int, size: int = 16, mu: float = 0.3, s: float = 0.5) -> Tensor:
    g = torch.Generator().manual_seed(7)
    return mu + s * torch.randn(n, 1, size, size, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_kl_terms_are_those_of_torchs_normals(schedule, variance):
    """Equations 6 and 7 written out again, with the mean of the model taken from x_t and eps."""
    g = torch.Generator().manual_seed(1)
    t = torch.tensor([2, 3, 10, 250, 999, 1000])
    x_0, eps, eps_hat = torch.randn(3, len(t), 3, 4, 4, generator=g, dtype=torch.float64)
    x_0, eps_hat = x_0.clamp(-1, 1), eps + 0.1 * eps_hat
    beta, ab, before = (
        table[t].reshape(-1, 1, 1, 1)
        for table in (schedule.beta, schedule.alpha_bar, torch.roll(schedule.alpha_bar, 1))
    )
    x_t = ab.sqrt() * x_0 + (1 - ab).sqrt() * eps
    x0_hat = (x_t - (1 - ab).sqrt() * eps_hat) / ab.sqrt()
    tilde = (1 - before) / (1 - ab) * beta
    mean = before.sqrt() * beta / (1 - ab) * x_0 + (1 - beta).sqrt() * (1 - before) / (1 - ab) * x_t
    model = (x_t - beta / (1 - ab).sqrt() * eps_hat) / (1 - beta).sqrt()  # eq. 11
    sigma = (beta if variance == "beta" else tilde).sqrt()
    wanted = kl_divergence(Normal(mean, tilde.sqrt()), Normal(model, sigma))
    bits, mse = terms(schedule, x_0, x0_hat, t, variance)
    wanted = wanted.flatten(1).mean(1) / math.log(2)
    assert (bits / wanted - 1).abs().max() < 1e-6
    assert torch.allclose(mse, (x_0 - x0_hat).square().flatten(1).mean(1))


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_weights_that_l_simple_leaves_out_are_those_of_equation_12(variance):
    """L_{t-1} grows by beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) for a unit of error in eps.

    L_simple gives all t the weight 1, so relative to it the bound gives this one.
    """
    for schedule in (LINEAR, COSINE):
        t = torch.arange(2, schedule.T + 1)
        g = torch.Generator().manual_seed(2)
        x_0, eps, off = torch.randn(3, len(t), 1, 2, 2, generator=g, dtype=torch.float64)
        x_t = schedule.q_sample(x_0, t, eps)
        ab = schedule.at(schedule.alpha_bar, t, x_t)
        bits, _ = terms(schedule, x_0, split(eps + off, x_t, ab, "eps").x0, t, variance)
        least, _ = terms(schedule, x_0, x_0, t, variance)
        beta, alpha = schedule.beta[t], schedule.alpha[t]
        sigma2 = beta if variance == "beta" else schedule.beta_tilde[t]
        weight = beta**2 / (2 * sigma2 * alpha * (1 - schedule.alpha_bar[t]))
        l_simple = off.square().flatten(1).mean(1)
        assert ((bits - least) * math.log(2) / l_simple / weight - 1).abs().max() < 1e-6


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("schedule", [LINEAR, COSINE, SHORT])
def test_gaussian_data_with_the_best_denoiser(schedule, variance):
    """The squared error is then the posterior's variance, in closed form, and so are all terms."""
    mu, s, n = 0.3, 0.5, 8
    steps = None if schedule is SHORT else 60
    x_0 = normal(n, 32, mu, s)
    got = drain(Gaussian(schedule, mu, s), x_0, steps=steps, variance=variance)
    assert got.n == n
    assert got.done == 1
    ab, beta = schedule.alpha_bar, schedule.beta
    square = s**2 * (1 - ab) / (ab * s**2 + 1 - ab)
    tilde = torch.cat([beta[:1], (1 - ab[:-1]) / (1 - ab[1:]) * beta[1:]])
    sigma2 = beta if variance == "beta" else tilde
    a = torch.cat([ab[:1], ab[:-1]]).sqrt() * beta / (1 - ab)
    nats = (sigma2 / tilde).log() + (tilde + a**2 * square) / sigma2 - 1
    assert got.first[0] == got.last[0] == 1
    ends = list(zip(got.first.tolist(), got.last.tolist(), strict=True))
    assert [t for first, last in ends for t in range(first, last + 1)] == [
        *range(1, schedule.T + 1)
    ]
    if steps is None:  # every t: only the noise of 8192 pixels is between us
        assert all(first == last for first, last in ends)
        wanted = nats[2:] / 2 / math.log(2)
        assert (got.terms[1:] / wanted - 1).abs().max() < 0.08  # 5 standard errors
        assert (got.mse / square[1:] - 1).abs().max() < 0.08
    whole = float(nats[2:].sum()) / 2 / math.log(2)
    assert abs(float(got.terms[1:].sum()) / whole - 1) < 0.02
    assert abs(got.prior - float(prior_bits(schedule, x_0).mean())) < 1e-12


def test_few_t_give_the_mean_of_all():
    """In the mean over many draws, and with the error that it claims, for a term of any size."""
    x_0, denoiser = normal(24, 8), Gaussian(LINEAR, 0.1, 0.4)
    exact = drain(denoiser, x_0[:6], batch_size=4096)
    few = [drain(denoiser, x_0[:6], steps=20, batch_size=4096, seed=i) for i in range(60)]
    totals = torch.tensor([b.total for b in few])
    claimed = torch.tensor([b.error for b in few]).square().mean().sqrt()
    assert abs(totals.mean() - exact.total) < 4 * claimed / math.sqrt(60)
    assert 0.5 < totals.std() / claimed < 1.3
    merged = torch.stack([b.terms for b in few]).mean(0)
    for k, (first, last) in enumerate(zip(few[0].first, few[0].last, strict=True)):
        wanted = float(exact.terms[first - 1 : last].sum())
        assert abs(float(merged[k]) / wanted - 1) < 0.06
        assert abs(float(few[0].per_t[k]) * int(last - first + 1) - float(few[0].terms[k])) < 1e-12


def test_prior_in_closed_form():
    x_0 = normal(3, 4)
    for schedule in (LINEAR, SHORT):
        ab = schedule.alpha_bar[-1]
        q = Normal(ab.sqrt() * x_0, (1 - ab).sqrt().expand_as(x_0))
        wanted = kl_divergence(q, Normal(torch.zeros_like(x_0), torch.ones_like(x_0)))
        wanted = wanted.flatten(1).mean(1) / math.log(2)
        assert (prior_bits(schedule, x_0) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("sigma", [0.003, 0.0074, 0.05, 1.0])
def test_decoder_by_numeric_integration(sigma):
    for x in (-1, -1 + 2 / 255, 1 / 255, 0.7 - 0.1 / 255, 1):
        level = float(LEVELS[(LEVELS - x).abs().argmin()])
        for mean in (level, level + 0.4 * sigma, level - 6 * sigma, 1.2):
            low = -np.inf if level == -1 else (level - 1 / 255 - mean) / sigma
            high = np.inf if level == 1 else (level + 1 / 255 - mean) / sigma
            if min(abs(low), abs(high)) > 30 and low * high > 0:
                continue  # beyond what the integral can see: the tests below go there
            middle = float(np.clip(0, low, high))  # the peak of the density in the bin
            parts = [
                integrate.quad(stats.norm.pdf, a, b, epsabs=0, epsrel=1e-11)[0]
                for a, b in ((low, middle), (middle, high))
                if a < b
            ]
            x_0, m = torch.tensor([level, mean], dtype=torch.float64)
            assert abs(float(log_decoder(x_0, m, sigma)) - math.log(sum(parts))) < 1e-8


def test_decoder_is_a_distribution_with_finite_tails():
    for sigma in (1e-3, 0.0074, 0.3):
        for mean in (-1.5, -1.0, 0.1234, 0.99, 2.0):
            log_p = log_decoder(LEVELS, torch.full_like(LEVELS, mean), sigma)
            assert log_p.isfinite().all()
            assert abs(float(log_p.exp().sum()) - 1) < 1e-12
            mirrored = log_decoder(-LEVELS, torch.full_like(LEVELS, -mean), sigma)
            assert (log_p - mirrored).abs().max() <= 1e-9 * log_p.abs().max()
    # far out, a tail is exp(-z^2/2) / (z sqrt(2 pi)) of the nearer edge
    z = (2 - 1 / 255) / 1e-3
    far = log_decoder(torch.tensor([-1.0]).double(), torch.tensor([1.0]).double(), 1e-3)
    assert abs(float(far) + z**2 / 2 + math.log(z * math.sqrt(2 * math.pi))) < 1e-3


def test_levels_of_a_float32_picture_fall_into_their_bins():
    x_0 = torch.arange(256).float() / 127.5 - 1
    mean = torch.full((256,), 0.2)
    ours = log_decoder(x_0.double(), mean.double(), 0.01)
    assert (ours - log_decoder(LEVELS, mean.double(), 0.01)).abs().max() < 1e-3
    assert abs(float(ours.exp().sum()) - 1) < 1e-5


@pytest.mark.parametrize("variance", VARIANCES)
def test_total_is_the_entropy_of_the_data_and_what_the_model_wastes(variance):
    """No model may need fewer bits than the data have.

    What it needs more is the divergence of the true q(x_{t-1} | x_t), a Gaussian here, from the
    model's, which has the right mean and the wrong variance; L_0 and L_T too are such divergences.
    """
    mu, s = -0.1, 0.15
    edges = (LEVELS[1:] + LEVELS[:-1]) / 2
    cdf = torch.special.ndtr((edges - mu) / s)
    p = torch.diff(cdf, prepend=torch.zeros(1), append=torch.ones(1)).clamp(min=1e-99)
    entropy = float(-(p * p.log2()).sum())
    index = torch.bucketize(normal(16, 16, mu, s), edges)
    x_0 = LEVELS[index]
    surprise = float(-p[index].log2().mean())  # what these very pixels cost a perfect coder
    assert abs(surprise - entropy) < 0.05
    got = drain(Gaussian(LINEAR, mu, s), x_0, variance=variance, batch_size=2000)

    ab, beta, tilde = LINEAR.alpha_bar, LINEAR.beta, LINEAR.beta_tilde
    before = torch.cat([ab[:1], ab[:-1]])
    spread = s**2 * before + 1 - before  # variance of x_{t-1}
    true = spread * beta / (s**2 * ab + 1 - ab)  # and of it given x_t
    ours = (beta if variance == "beta" else tilde).clone()
    ours[1] = tilde[2] + (2 / 255) ** 2 / 12  # the bins' own width adds to the decoder's
    wasted = ((ours / true).log() + true / ours - 1)[1:].sum() / 2
    end = s**2 * ab[-1] + 1 - ab[-1]
    wasted += (end + ab[-1] * mu**2 - 1 - end.log()) / 2
    print(got.total, surprise, float(wasted) / math.log(2))
    assert got.total > surprise
    assert abs(got.total - surprise - float(wasted) / math.log(2)) < 0.02
    wrong = drain(Gaussian(LINEAR, 0.1, 0.25), x_0, variance=variance, batch_size=2000)
    assert wrong.total > got.total + 0.05


def test_curve_goes_from_pure_noise_to_the_picture():
    mu, s = 0.3, 0.5
    x_0 = normal(4, 16, mu, s)
    got = drain(Gaussian(SHORT, mu, s), x_0)
    rate, rmse = got.curve
    assert len(rate) == len(rmse) == 21
    assert rate[0] == pytest.approx(got.prior)
    for t in range(20, 0, -1):  # who knows x_t has received the terms of all s > t
        assert rate[20 - t] == pytest.approx(got.prior + float(got.terms[t:].sum()))
        assert rmse[20 - t] == pytest.approx(127.5 * math.sqrt(float(got.mse[t - 1])))
    assert rate[-1] == pytest.approx(got.total)
    assert rmse[-1] == 0
    assert (rate.diff() > 0).all()
    assert (rmse.diff() < 1.5).all()  # but for noise
    long = drain(Gaussian(LINEAR, mu, s), x_0)
    few = drain(Gaussian(LINEAR, mu, s), x_0, steps=40)
    between = np.interp(few.curve[0], *(v.numpy() for v in long.curve))
    assert np.abs(between - few.curve[1].numpy()).max() < 3  # of 255


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_batches_change_nothing_and_each_one_is_reported(batch_size):
    x_0 = normal(3, 4).float()
    reports = list(bound(Gaussian(SHORT, 0, 1), x_0, BoundConfig(9, batch_size=batch_size, seed=5)))
    whole = drain(Gaussian(SHORT, 0, 1), x_0, steps=9, batch_size=27, seed=5)
    assert reports[-1].total == pytest.approx(whole.total, rel=1e-6)
    assert torch.allclose(reports[-1].terms, whole.terms, rtol=1e-6, atol=0)
    assert reports[-1].error == pytest.approx(whole.error, rel=1e-5)
    shares = [r.done for r in reports]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    for r in reports:
        assert r.n == int(r.done * 3 + 1e-9) or batch_size > 9
        assert math.isnan(r.total) == (r.n == 0)
    assert len(reports) == {1: 27, 7: 6, 64: 1, 1000: 1}[batch_size]
    if batch_size < 9:  # what each picture alone adds, from the running mean
        sums = [0.0, *(next(r.total * k for r in reports if r.n == k) for k in (1, 2, 3))]
        wanted = float(np.diff(sums).std(ddof=1)) / math.sqrt(3)
        assert whole.error == pytest.approx(wanted, rel=1e-4)
    one = drain(Gaussian(SHORT, 0, 1), x_0[:1], steps=9, seed=5)
    first = next(r for r in reports if r.n)
    if first.n == 1:  # a run that was stopped is the run of fewer pictures
        assert first.total == pytest.approx(one.total, rel=1e-6)
    assert math.isnan(one.error)
    other = drain(Gaussian(SHORT, 0, 1), x_0, steps=9, seed=6)
    assert other.total != whole.total


def checkpoint(noise: str = "gaussian", **changes) -> Checkpoint:
    config = ModelConfig(size=8, channels=1, width=8, multipliers=(1,), attention=(), **changes)
    return Checkpoint(UNet(config).eval(), DiffusionConfig(T=10, noise=noise))


def test_a_model_without_and_with_classes():
    x_0 = normal(2, 8).clamp(-1, 1).float()
    for m in (checkpoint(), checkpoint(num_classes=3)):
        *_, got = model_bound(m, x_0, BoundConfig(batch_size=5))
        wanted = drain(Denoiser(m.model, m.diffusion), x_0)
        assert got.total == pytest.approx(wanted.total, rel=1e-5)
        said = got.as_dict()
        assert said["bits_per_dim"] == pytest.approx(said["L_T"] + sum(said["terms"]))
        assert said["n"] == 2
        assert not torch.is_grad_enabled() or not got.terms.requires_grad


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"steps": 1}, "Steps must be a whole number from 2 to 10"),
        ({"steps": 11}, "Steps must be .*, not 11"),
        ({"variance": "learned"}, "Variance must be beta_tilde or beta, not 'learned'"),
        ({"batch_size": 0}, "batch_size must be .*, not 0"),
        ({"seed": -1}, "Seed must be .*, not -1"),
        ({"x_0": torch.zeros(0, 1, 8, 8)}, "Number of pictures must be .*, not 0"),
        ({"x_0": torch.zeros(1, 3, 8, 8)}, "Shape of the pictures must be"),
    ],
)
def test_wrong_arguments_are_refused_at_once(bad, said):
    x_0 = bad.pop("x_0", torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=said):
        model_bound(checkpoint(), x_0, BoundConfig(**bad))


def test_laplace_is_refused_at_once():
    with pytest.raises(
        ValueError, match=r"Noise of the model must be gaussian, not 'laplace': bits"
    ):
        model_bound(checkpoint("laplace"), torch.zeros(1, 1, 8, 8))
