"""The tables against the papers' formulas in numpy, Bayes, and diffusers' schedulers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm_demo.config import SCHEDULES, SPACINGS, DiffusionConfig, SampleConfig
from ddpm_demo.diffusion import Schedule

BETA_SCHEDULES = {
    "linear": "linear",
    "cosine": "squaredcos_cap_v2",
    "scaled_linear": "scaled_linear",
}


def schedule(kind: str = "linear", T: int = 1000) -> Schedule:
    return Schedule.from_config(DiffusionConfig(T, kind))


def worst(a: object, b: object) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def betas(kind: str, T: int) -> np.ndarray:
    """The published formulas, written out once more."""
    if kind == "linear":  # Ho et al. 2020, section 4
        return np.array([1e-4 + (0.02 - 1e-4) * i / (T - 1) for i in range(T)])
    if kind == "scaled_linear":  # of latent diffusion
        return np.linspace(1e-4**0.5, 0.02**0.5, T) ** 2
    t = np.arange(T + 1)  # Nichol & Dhariwal 2021, eq. 17
    f = np.cos((t / T + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha_bar = f / f[0]
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


@pytest.mark.parametrize("T", [10, 1000, 4000])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_tables(kind: str, T: int) -> None:
    s, beta = schedule(kind, T), betas(kind, T)
    assert s.T == T
    for table in (s.beta, s.alpha, s.alpha_bar, s.snr, s.beta_tilde):
        assert table.shape == (T + 1,)
        assert table.dtype == torch.float64
    alpha_bar = np.ones(T + 1)
    for t in range(1, T + 1):
        alpha_bar[t] = alpha_bar[t - 1] * (1 - beta[t - 1])
    assert (s.beta[0], s.alpha_bar[0], s.snr[0]) == (0, 1, np.inf)
    assert worst(s.beta[1:], beta) < 1e-14
    assert worst(s.alpha[1:], 1 - beta) < 1e-14
    assert worst(s.alpha_bar, alpha_bar) < 1e-14
    assert worst(s.snr[1:].log(), np.log(alpha_bar[1:] / (1 - alpha_bar[1:]))) < 1e-9
    tilde = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta  # eq. 7
    assert worst(s.beta_tilde[1:], tilde) < 1e-14
    assert s.beta_tilde[:2].tolist() == [0, 0]


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_tables_are_those_of_diffusers(kind: str, T: int) -> None:
    theirs = DDPMScheduler(T, 1e-4, 0.02, BETA_SCHEDULES[kind])
    ours = schedule(kind, T)
    assert worst(ours.beta[1:], theirs.betas) < 1e-6
    assert worst(ours.alpha[1:], theirs.alphas) < 1e-6
    assert worst(ours.alpha_bar[1:], theirs.alphas_cumprod) < 1e-6
    variances = [theirs._get_variance(t) for t in range(1, T)]
    assert worst(ours.beta_tilde[2:], variances) < 1e-6


def test_both_ends_of_linear_can_be_set() -> None:
    s = Schedule.linear(100, 0.001, 0.3)
    assert worst(s.beta[[1, 2, 100]], [0.001, 0.001 + 0.299 / 99, 0.3]) < 1e-14


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(2, 1), (10, 1), (500, 480), (1000, 999), (1000, 3)])
def test_posterior_is_bayes(kind: str, t: int, s: int) -> None:
    """q(x_s | x_t, x_0) is proportional to q(x_s | x_0) q(x_t | x_s): precisions add."""
    table = schedule(kind)
    beta = betas(kind, 1000)
    ab_s = np.prod(1 - beta[:s])
    forward = np.prod(1 - beta[s:t])  # x_t = sqrt(forward) x_s + noise of variance 1 - forward
    precision = 1 / (1 - ab_s) + forward / (1 - forward)
    a = np.sqrt(ab_s) / (1 - ab_s) / precision
    b = np.sqrt(forward) / (1 - forward) / precision
    assert worst(table.posterior(t, s), [a, b, 1 / precision]) < 1e-9
    if s == t - 1:
        assert table.posterior(t) == table.posterior(t, s)
        assert abs(table.posterior(t)[2] - float(table.beta_tilde[t])) < 1e-12


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_posterior_over_two_steps_is_two_posteriors(kind: str) -> None:
    table = schedule(kind)
    for t, u, s in ((900, 500, 20), (3, 2, 1), (1000, 10, 4)):
        a1, b1, v1 = table.posterior(t, u)
        a2, b2, v2 = table.posterior(u, s)
        both = (a2 + b2 * a1, b2 * b1, v2 + b2**2 * v1)
        assert worst(table.posterior(t, s), both) < 1e-9


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_last_posterior_is_x_0(kind: str) -> None:
    table = schedule(kind)
    for t in (1, 20, 1000):
        assert table.posterior(t, 0) == (1, 0, 0)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("T", [10, 300])
def test_steps_add_up_to_the_closed_form(kind: str, T: int) -> None:
    """eq. 2 over and over is eq. 4. The process is linear, so x_0 = 1 without noise carries the
    mean's coefficient, and unit noise in one step at a time the variance."""
    table = schedule(kind, T)
    x = torch.eye(T + 1, dtype=torch.float64)[:, :1].reshape(-1, 1, 1, 1)  # picture 0: the mean
    for t in range(1, T + 1):
        eps = torch.zeros_like(x)
        eps[t] = 1  # picture t: noise in step t only
        x = table.q_step(x, t, eps)
        jump = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
        mean, sigma = table.q_sample(jump[:1], t, jump[1:])[0].flatten().tolist()
        assert abs(float(x[0]) - mean) < 1e-12
        assert abs(float((x[1:] ** 2).sum()) - sigma**2) < 1e-12


def test_q_sample_takes_a_t_for_each_picture() -> None:
    table = schedule()
    x_0, eps = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 1, 1000])
    x_t = table.q_sample(x_0, t, eps)
    assert torch.equal(x_t[0], x_0[0])  # t = 0 is the clean picture
    for k in range(3):
        ab = np.prod(1 - betas("linear", 1000)[: t[k]])
        wanted = np.sqrt(ab) * x_0[k].numpy() + np.sqrt(1 - ab) * eps[k].numpy()
        assert worst(x_t[k], wanted) < 1e-6
    assert x_t.dtype == torch.float32


@pytest.mark.parametrize("t", [-1, 1001, [5, 1001], [-1, 5]])
def test_a_t_outside_is_refused(t: int | list[int]) -> None:
    x = torch.zeros(2, 1, 4, 4)
    for step in (schedule().q_sample, schedule().q_step):
        with pytest.raises(ValueError, match=r"t must be from 0 to 1000, not .*\."):
            step(x, torch.tensor(t), x)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, float("nan"), float("inf")])
def test_a_beta_outside_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"Beta must be above 0 and below 1, not {bad}\."):
        Schedule(torch.tensor([0.1, bad, 0.2]))


@pytest.mark.parametrize("T", [9, 4001, 10.5])
def test_a_bad_length_is_refused(T: int) -> None:
    for make in (Schedule.linear, Schedule.cosine):
        with pytest.raises(ValueError, match=f"T must be a whole number from 10 to 4,000, not {T}"):
            make(T)


def test_the_most_extreme_betas_stay_finite() -> None:
    for ends in ((1e-8, 1e-8), (0.999, 0.999), (1e-8, 0.999)):
        table = Schedule.linear(4000, *ends)
        for t, s in ((4000, 3999), (4000, 1), (1, 0), (2, 1)):
            assert np.isfinite(table.posterior(t, s)).all()
        assert table.alpha_bar[1] < 1
        assert table.alpha_bar[-1].sqrt().float() > 0  # the network's eps is divided by this
        assert table.snr[1:].isfinite().all()


# Which steps to take


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [10, 11, 97, 1000, 4000])
def test_timesteps_fall_from_T_to_1(spacing: str, T: int) -> None:
    table = schedule(T=T)
    every = range(1, T + 1) if T < 100 else [*range(1, 60), *range(60, T, 61), T - 1, T]
    for steps in every:
        chosen = table.timesteps(steps, spacing)
        assert len(chosen) == steps
        assert all(type(t) is int for t in chosen)
        assert all(a > b for a, b in pairwise(chosen))
        assert chosen[0] <= T
        assert chosen[-1] >= 1
        if spacing != "leading":
            assert chosen[0] == T
        if spacing in ("leading", "uniform", "quadratic") and steps > 1:
            assert chosen[-1] == 1
    assert table.timesteps(T, spacing) == list(range(T, 0, -1))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("start", [968, 1000])
def test_spacings_by_noise(kind: str, start: int) -> None:
    """Equal gaps in the log of the SNR, or in sigma^(1/7), as near as whole t allow."""
    table = Schedule.from_config(DiffusionConfig(1000, kind))
    log_snr = (table.alpha_bar[1:].log() - (1 - table.alpha_bar[1:]).log()).numpy()
    for spacing, height in (("logsnr", log_snr), ("karras", np.exp(-log_snr / 14))):
        wanted = np.linspace(height[start - 1], height[0], 9)[:-1]
        for t, ideal in zip(table.timesteps(8, spacing, start), wanted, strict=True):
            near = np.abs(height - ideal)
            crowded = t in range(start - 8, start)  # near T t may be all too far apart
            assert crowded or near[t - 1] == near.min()


def test_karras_is_near_the_list_that_measured_well() -> None:
    """EDM's spacing from sigma 20 to 0.02, of which UniPC in 5 calls made good pictures."""
    measured, sigma = [968, 918, 768, 398, 89], Schedule.cosine(1000).snr ** -0.5
    for t, known in zip(Schedule.cosine(1000).timesteps(5, "karras", 968), measured, strict=True):
        assert 0.5 < float(sigma[t] / sigma[known]) < 2


def test_a_list_of_timesteps_goes_before_all() -> None:
    run = SampleConfig(steps=50, spacing="uniform", start=700, timesteps=(975, 906, 577, 85))
    assert schedule().chosen(run) == [975, 906, 577, 85]
    assert run.steps == 4
    assert schedule().chosen(SampleConfig(steps=3, start=9)) == [9, 6, 3]
    assert run.but(steps=4, n=3, sampler="heun").timesteps == run.timesteps
    for change in ({"steps": 5}, {"spacing": "logsnr"}, {"start": None}):
        other = run.but(**change)
        assert schedule().chosen(other) == schedule().timesteps(
            other.steps, other.spacing, other.start
        )
    with pytest.raises(ValueError, match=r"First of the timesteps must be .* 1 to 100"):
        schedule(T=100).chosen(run)


@pytest.mark.parametrize("bad", [(), (5, 5), (1, 2), (5001, 3), (3, 0), (3.0, 1), "5", [5, 3]])
def test_a_bad_list_of_timesteps_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"Timesteps must be a falling list"):
        SampleConfig(timesteps=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_gaps(steps: int) -> None:
    table = schedule()
    gaps = -np.diff(table.timesteps(steps, "uniform"))
    assert worst(gaps, 999 / (steps - 1)) <= 1
    gaps = -np.diff(table.timesteps(steps, "quadratic"))
    assert (np.diff(gaps) <= 1).all()  # finer and finer towards the picture
    roots = np.sqrt(table.timesteps(10, "quadratic"))
    assert worst(np.diff(roots, n=2), 0) < 0.4


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 25, 50, 100, 250, 500, 999, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_timesteps_are_those_of_diffusers(spacing: str, steps: int) -> None:
    for kind in (DDPMScheduler, DDIMScheduler):
        scheduler = kind(1000, timestep_spacing=spacing)
        scheduler.set_timesteps(steps)
        assert schedule().timesteps(steps, spacing) == (scheduler.timesteps + 1).tolist()


@pytest.mark.parametrize("steps", [0, -1, 101, 2.5, float("nan")])
def test_a_bad_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"Steps must be a whole number from 1 to .*, not {steps}"):
        schedule(T=100).timesteps(steps)


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="Spacing must be uniform, quadratic"):
        schedule().timesteps(10, "log")


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_later_start_is_a_shorter_way(spacing: str) -> None:
    schedule = Schedule.cosine(1000)
    chosen = schedule.timesteps(10, spacing, 40)
    assert (len(chosen), chosen[0]) == (10, 40 if spacing != "leading" else 37)
    if spacing not in ("logsnr", "karras"):  # they look at the noise, which is another there
        assert chosen == Schedule.cosine(40).timesteps(10, spacing)
    with pytest.raises(ValueError, match=r"Start must be a whole number from 1 to"):
        schedule.timesteps(10, spacing, 1001)
    with pytest.raises(ValueError, match=r"Steps must be a whole number from 1 to 40"):
        schedule.timesteps(41, spacing, 40)
