"""DDPM and DDIM where the answer is known, beside diffusers, and as generators.

The best denoiser of Gaussian data is linear in x_t, and so are the samplers' moves. Whatever goes
in as one unit (the first noise, or the noise of one step) comes out with the coefficient that it
has in the sample, so means and variances are computed here, not estimated.
"""

import math
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from ddpm_demo.config import NOISES, PREDICTIONS, SAMPLERS, SCHEDULES, DiffusionConfig
from ddpm_demo.diffusion import Denoiser, Noise, Prediction, Schedule, Step
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.diffusion.samplers.ddpm import ddpm
from ddpm_demo.models.checkpoint import Checkpoint

VARIANTS: dict[str, tuple[Callable[..., Iterator[Step]], dict[str, Any]]] = {
    "ddpm beta_tilde": (ddpm, {"variance": "beta_tilde"}),
    "ddpm beta": (ddpm, {"variance": "beta"}),
    "ddim 0": (ddim, {"eta": 0.0}),
    "ddim 0.4": (ddim, {"eta": 0.4}),
    "ddim 1": (ddim, {"eta": 1.0}),
}
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2", "scaled_linear": "scaled_linear"}
PREDICT = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def schedule(kind: str) -> Schedule:
    return Schedule.from_config(DiffusionConfig(1000, kind))


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


class Best:
    """E[x_0 | x_t] for pixels from N(mean, std^2)."""

    def __init__(self, schedule: Schedule, mean: float, std: float) -> None:
        self.schedule, self.mean, self.std = schedule, mean, std

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        ab = self.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        gain = self.std**2 * ab.sqrt() / (ab * self.std**2 + 1 - ab)
        x0 = self.mean + gain * (x_t - ab.sqrt() * self.mean)
        return Prediction(x0, (x_t - ab.sqrt() * x0) / (1 - ab).sqrt())


class Units:
    """Noise whose k-th draw is 1 in picture k + 2, and 0 in all others."""

    def __init__(self) -> None:
        self.drawn = 0

    def like(self, x: Tensor) -> Tensor:
        self.drawn += 1
        eps = torch.zeros_like(x)
        eps[self.drawn + 1] = 1
        return eps


def moments(
    name: str, best: Best, timesteps: list[int], mean_T: float = 0.0, std_T: float = 1.0
) -> list[tuple[int, float, float]]:
    """t, mean and standard deviation of x_t at every step, for x_T ~ N(mean_T, std_T^2)."""
    sampler, options = VARIANTS.get(name) or (SAMPLERS[name], {})
    x_T = torch.full((len(timesteps) + 2, 1, 1, 1), mean_T, dtype=torch.float64)
    x_T[1] += std_T  # picture 0: all means; picture 1: x_T one standard deviation up
    found = []
    for step in sampler(best, x_T, timesteps, noise=Units(), **options):
        x = step.x_t.flatten()
        found.append((step.t, float(x[0]), float((x[1:] - x[0]).square().sum().sqrt())))
    return found


# Where the answer is known


@pytest.mark.parametrize(("name", "order"), [("ddpm beta_tilde", 1), ("dpmpp_2m_sde", 2)])
def test_weak_order_of_samplers_that_add_noise(name: str, order: int) -> None:
    """The standard deviation of x_t comes near that of q(x_t) as steps^-order.

    At t = 400 of 4000, not at 0, as the last step to 0 is of first order for all; those that add no
    noise are in test_solvers.py.
    """
    best, end = Best(Schedule.linear(4000, 2.5e-5, 0.005), 0.3, 0.5), 400
    signal = best.schedule.alpha_bar.sqrt()
    means, stds = 0.3 * signal, (1 - 0.75 * signal**2).sqrt()
    errors = []
    for steps in (75, 150, 300):
        timesteps = [4000 - (4000 - end) * i // steps for i in range(steps + 1)]
        *_, found, _ = moments(name, best, timesteps, float(means[-1]), float(stds[-1]))
        assert found[0] == end
        assert abs(found[1] - means[end]) < 1e-12
        errors.append(abs(found[2] - float(stds[end])))
    for slope in (math.log2(a / b) for a, b in pairwise(errors)):
        assert order - 0.15 < slope < order + 0.15


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("name", VARIANTS)
def test_many_steps_give_back_mean_and_variance(name: str, kind: str) -> None:
    best = Best(schedule(kind), 0.3, 0.5)
    errors = []
    for steps in (250, 1000):
        *_, (t, mean, std) = moments(name, best, best.schedule.timesteps(steps, "trailing"))
        assert t == 0
        errors.append(max(abs(mean - 0.3), abs(std - 0.5)))
    assert errors[1] < 0.01
    assert errors[1] < 0.6 * errors[0]  # what is left is the steps' length


@pytest.mark.parametrize("steps", [10, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "quadratic"])
def test_beta_is_exact_for_unit_variance(spacing: str, steps: int) -> None:
    """Ho et al. 2020, section 3.2: sigma^2 = beta is optimal for x_0 ~ N(0, I), where every x_t
    is N(0, I) too, at any length of step."""
    table = schedule("linear")
    *way, (t, mean, std) = moments("ddpm beta", Best(table, 0, 1), table.timesteps(steps, spacing))
    assert max(abs(mean) for _, mean, _ in way) < 1e-12
    assert max(abs(std - 1) for _, _, std in way) < 1e-9
    last = math.sqrt(float(table.alpha_bar[way[-1][0]]))  # the mean alone, without noise
    assert (t, mean) == (0, 0)
    assert abs(std - last) < 1e-9


@pytest.mark.parametrize("name", ["ddpm beta_tilde", "ddim 0", "ddim 0.4", "ddim 1"])
@pytest.mark.parametrize("steps", [10, 1000])
def test_these_are_exact_for_a_single_picture(name: str, steps: int) -> None:
    """beta_tilde is optimal for x_0 set to one point (ibid.), and DDIM keeps the marginals at any
    eta: x_t stays N(sqrt(ab) x_0, 1 - ab)."""
    table = schedule("cosine")
    ab = table.alpha_bar
    start = 0.8 * math.sqrt(float(ab[1000])), math.sqrt(1 - float(ab[1000]))
    way = moments(name, Best(table, 0.8, 0), table.timesteps(steps), *start)
    assert len(way) == steps + 1
    for t, mean, std in way:
        assert abs(mean - 0.8 * math.sqrt(float(ab[t]))) < 1e-6
        assert abs(std - math.sqrt(1 - float(ab[t]))) < 1e-6


@pytest.mark.parametrize("kind", NOISES)
def test_real_noise(kind: str) -> None:
    """The same with pixels drawn at random: 64 pictures, so that their streams have to differ."""
    best = Best(schedule("linear"), 0.3, 0.5)
    timesteps = best.schedule.timesteps(20, "trailing")
    *_, (_, mean, std) = moments("ddpm beta_tilde", best, timesteps)
    noise = Noise(kind, range(64))
    *_, last = ddpm(best, noise.draw((64, 3, 16, 16)), timesteps, noise=noise)
    assert abs(float(last.x_t.mean()) - mean) < 0.01  # more than four standard errors each
    assert abs(float(last.x_t.std()) - std) < 0.01
    assert abs(float(last.x_t.mean(dim=0).std()) - std / 8) < 0.007


# The same steps by another name


class Fake:
    """A network's answer that mixes pixels and knows t; not the score of anything."""

    def __call__(self, x: Tensor, t: Tensor, _y: Tensor | None = None) -> Tensor:
        return torch.sin(2 * x + t.reshape(-1, 1, 1, 1) / 90) + 0.3 * x.flip(3)


def fake(kind: str = "linear", predict: str = "eps", clip: bool = True) -> Denoiser:
    return Denoiser(Fake(), DiffusionConfig(1000, kind, predict=predict), clip=clip)


SUBSETS = {
    "one by one": [*range(1000, 985, -1), *range(15, 0, -1)],
    "uniform": Schedule.linear().timesteps(15),
    "few and uneven": [1000, 640, 639, 310, 77, 5, 2],
    "from the middle": [400, 200, 3],
}


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_ddim_with_eta_1_is_ddpm_with_beta_tilde(kind: str, subset: str) -> None:
    runs = []
    for sampler, options in ((ddim, {"eta": 1.0}), (ddpm, {"variance": "beta_tilde"})):
        noise = Noise("gaussian", [1, 2])
        x_T = noise.draw((2, 1, 4, 4)).double()
        runs.append(list(sampler(fake(kind), x_T, SUBSETS[subset], noise=noise, **options)))
    for a, b in zip(*runs, strict=True):
        assert (a.index, a.total, a.t) == (b.index, b.total, b.t)
        assert worst(a.x_t, b.x_t) < 1e-9
        assert worst(a.x0_hat, b.x0_hat) < 1e-9


def in_double(theirs: Any, kind: str) -> Any:
    """Their tables are float32, which near T and 1 rounds more than what is compared here."""
    theirs.alphas_cumprod = schedule(kind).alpha_bar[1:]
    return theirs


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("variance", ["beta_tilde", "beta"])
def test_ddpm_is_that_of_diffusers(
    variance: str, predict: str, subset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step from our x_t, with the same noise and the same network."""
    kind = "cosine" if predict == "v" else "linear"
    theirs = DDPMScheduler(
        1000,
        beta_schedule=BETAS[kind],
        prediction_type=PREDICT[predict],
        variance_type={"beta_tilde": "fixed_small", "beta": "fixed_large"}[variance],
    )
    in_double(theirs, kind).set_timesteps(timesteps=[t - 1 for t in SUBSETS[subset]])
    noise, same = Noise("gaussian", [1, 2]), Noise("gaussian", [1, 2])
    x_T = noise.draw((2, 1, 4, 4))
    same.draw(x_T.shape)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: same.draw(shape))
    run = ddpm(fake(kind, predict), x_T, SUBSETS[subset], noise=noise, variance=variance)
    network = Fake()
    for step, after in pairwise(run):
        t = step.t - 1
        said = theirs.step(network(step.x_t, torch.tensor([t])), t, step.x_t)
        assert worst(step.x0_hat, said.pred_original_sample) < 1e-5
        if after.t or t == 0:  # theirs adds noise to the sample itself, if that isn't from t = 1
            assert worst(after.x_t, said.prev_sample) < 1e-5


@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize(("spacing", "steps"), [("leading", 20), ("trailing", 20)])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers(eta: float, spacing: str, steps: int, predict: str) -> None:
    kind = "cosine" if predict == "v" else "linear"
    theirs = DDIMScheduler(
        1000,
        beta_schedule=BETAS[kind],
        prediction_type=PREDICT[predict],
        timestep_spacing=spacing,
    )
    in_double(theirs, kind).set_timesteps(steps)
    noise, same = Noise("gaussian", [1, 2]), Noise("gaussian", [1, 2])
    x_T = noise.draw((2, 1, 4, 4))
    same.draw(x_T.shape)
    denoiser, network = fake(kind, predict), Fake()
    run = ddim(denoiser, x_T, denoiser.schedule.timesteps(steps, spacing), noise=noise, eta=eta)
    for step, after in pairwise(run):
        t = step.t - 1
        said = theirs.step(
            network(step.x_t, torch.tensor([t])),
            t,
            step.x_t,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=same.draw(x_T.shape) if eta and after.t else torch.zeros_like(x_T),
        )
        assert worst(step.x0_hat, said.pred_original_sample) < 1e-5
        assert worst(after.x_t, said.prev_sample) < 1e-5


# As generators


def run_of(name: str, denoiser: Any, n: int = 2, steps: int = 7, size: int = 8) -> Iterator[Step]:
    noise = Noise("gaussian", range(10, 10 + n))
    x_T = noise.draw((n, 1, size, size))
    return SAMPLERS[name](denoiser, x_T, denoiser.schedule.timesteps(steps), noise=noise)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_count_down_to_the_sample(name: str) -> None:
    denoiser = fake()
    timesteps = denoiser.schedule.timesteps(7)
    steps = list(run_of(name, denoiser))
    assert [s.t for s in steps] == [*timesteps, 0]
    assert [s.index for s in steps] == list(range(8))
    assert {s.total for s in steps} == {7}
    assert torch.equal(steps[0].x_t, Noise("gaussian", [10, 11]).draw((2, 1, 8, 8)))
    assert torch.equal(steps[-1].x_t, steps[-1].x0_hat)
    for step in steps[:-1]:
        seen = denoiser(step.x_t, torch.tensor([step.t] * 2))
        assert torch.equal(step.x0_hat, seen.x0)
        assert torch.equal(step.eps_hat, seen.eps)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_last_step_adds_no_noise(name: str) -> None:
    """It ends in x0_hat, with sigma^2 = beta too, however long it is."""
    sampler, options = VARIANTS[name]
    for timesteps in ([1000, 500, 1], [1000, 400], [1000]):
        noise, draws = Noise("gaussian", [3]), []
        monitored = Noise("gaussian", [3])
        monitored.draw = lambda shape, noise=noise, draws=draws: (  # type: ignore[method-assign]
            draws.append(1) or noise.draw(shape)
        )
        x_T = torch.ones(1, 1, 4, 4)
        *_, before, last = sampler(fake(), x_T, timesteps, noise=monitored, **options)
        assert torch.equal(last.x_t, before.x0_hat)
        assert len(draws) == (0 if name == "ddim 0" else len(timesteps) - 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_streamed_is_drained(name: str, tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    denoiser = Denoiser(checkpoint.model, checkpoint.diffusion)
    kept = []
    for step in run_of(name, denoiser):
        kept.append((step, step.x_t.clone(), step.x0_hat.clone()))
        torch.rand(5)  # a caller may do what it likes in between
    *_, drained = run_of(name, denoiser)
    assert torch.equal(kept[-1][0].x_t, drained.x_t)
    for step, x_t, x0_hat in kept:  # nothing that was shown is written over later
        assert torch.equal(step.x_t, x_t)
        assert torch.equal(step.x0_hat, x0_hat)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_is_the_same_in_any_batch(name: str, tiny: Callable[..., Checkpoint]) -> None:
    """Bit for bit where the network is pointwise; a real one sums in another order."""
    checkpoint = tiny()
    best = Best(schedule("linear"), 0.3, 0.5)
    for denoiser, tolerance in (
        (best, 0.0),
        (Denoiser(checkpoint.model, checkpoint.diffusion), 1e-5),
    ):
        *_, batch = run_of(name, denoiser, n=3)
        for k in range(3):
            noise = Noise("gaussian", [10 + k])
            x_T = noise.draw((1, 1, 8, 8))
            *_, alone = SAMPLERS[name](denoiser, x_T, denoiser.schedule.timesteps(7), noise=noise)
            assert worst(alone.x_t, batch.x_t[k : k + 1]) <= tolerance
        assert worst(batch.x_t[0], batch.x_t[1]) > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_thread_may_go_on(name: str, tiny: Callable[..., Checkpoint]) -> None:
    """Grad mode belongs to a thread: it must be neither lost here nor left behind there."""
    checkpoint = tiny()
    denoiser = Denoiser(checkpoint.model, checkpoint.diffusion)
    *_, wanted = run_of(name, denoiser)
    run = run_of(name, denoiser)
    steps, modes = [next(run)], [torch.is_grad_enabled()]

    def go_on() -> None:
        modes.append(torch.is_grad_enabled())
        steps.append(next(run))
        modes.append(torch.is_grad_enabled())
        with torch.inference_mode():
            steps.append(next(run))
        modes.append(torch.is_grad_enabled())

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    modes.append(torch.is_grad_enabled())
    steps += run
    modes.append(torch.is_grad_enabled())
    assert modes == [True] * 6
    assert len(steps) == 8
    # Not bit for bit: the new thread may run its operators on another number of cores.
    assert worst(steps[-1].x_t, wanted.x_t) <= 1e-5
    assert not any(s.x_t.requires_grad or s.x0_hat.requires_grad for s in steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_stopped_run_computes_no_more(name: str) -> None:
    calls = []

    class Counting(Fake):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            calls.append(t)
            return super().__call__(x, t, y)

    run = run_of(name, Denoiser(Counting(), DiffusionConfig()))
    assert not calls  # nothing before it is asked for
    next(run)
    assert len(calls) == 1
    next(run)
    so_far = len(calls)
    run.close()
    assert len(calls) == so_far
    assert list(run) == []


@pytest.mark.parametrize(
    "timesteps", [[], [5, 5], [1, 2], [1001], [1000, 0], [3, -1], [1000, 2, 3, 1]]
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_timesteps_are_refused(name: str, timesteps: list[int]) -> None:
    x_T = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="they have to fall from 1000 or less to 1 or more") as e:
        next(SAMPLERS[name](fake(), x_T, timesteps, noise=Noise("gaussian", [0])))
    assert str(timesteps) in str(e.value)


def test_bad_options_are_refused() -> None:
    x_T, noise = torch.zeros(1, 1, 4, 4), Noise("gaussian", [0])
    with pytest.raises(ValueError, match=r"Eta must be a number from 0 to 1, not 1\.5"):
        ddim(fake(), x_T, [1], noise=noise, eta=1.5)
    with pytest.raises(ValueError, match="Variance must be beta_tilde or beta, not 'learned'"):
        ddpm(fake(), x_T, [1], noise=noise, variance="learned")


def test_one_step_from_pure_noise() -> None:
    denoiser = fake()
    x_T = Noise("gaussian", [0]).draw((1, 1, 4, 4))
    steps = list(ddim(denoiser, x_T, [1000], noise=Noise("gaussian", [0])))
    assert [s.t for s in steps] == [1000, 0]
    assert np.abs(steps[-1].x_t.numpy()).max() <= 1
