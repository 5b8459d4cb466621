"""The fast samplers against closed forms, against each other and against diffusers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm_demo.config import SAMPLERS, SPACINGS, DiffusionConfig
from ddpm_demo.diffusion import Denoiser, Noise, Prediction, Schedule, Step, split
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.diffusion.samplers.ddpm import ddpm

SOLVERS = ("dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
LINEAR, COSINE = Schedule.linear(), Schedule.cosine()
MIXTURE = ((0.3, -0.6, 0.15), (0.7, 0.5, 0.3))  # weight, mean, standard deviation


class Exact:
    """The best denoiser there can be for data from a mixture of Gaussians, pixel by pixel.

    Not clipped, as the data isn't.
    """

    def __init__(self, schedule: Schedule, *parts: tuple[float, float, float]) -> None:
        self.schedule, self.parts = schedule, parts

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        ab = self.schedule.at(self.schedule.alpha_bar, t, x_t).to(x_t.dtype)
        logits, means = [], []
        for weight, mu, sd in self.parts:
            gap, var = x_t - ab.sqrt() * mu, ab * sd**2 + 1 - ab
            logits.append(math.log(weight) - var.log() / 2 - gap**2 / var / 2)
            means.append(mu + sd**2 * ab.sqrt() * gap / var)
        x0 = (torch.stack(logits).softmax(0) * torch.stack(means)).sum(0)
        return split(x0, x_t, ab, "x0")

    def cdf(self, x: Tensor, t: int) -> Tensor:
        """Of x_t."""
        ab = float(self.schedule.alpha_bar[t])
        return sum(
            w * torch.special.ndtr((x - math.sqrt(ab) * mu) / math.sqrt(ab * sd**2 + 1 - ab))
            for w, mu, sd in self.parts
        )

    def flow(self, x_t: Tensor, t: int, s: int) -> Tensor:
        """x_s of the probability-flow ODE: in one dimension it keeps every quantile."""
        rank = self.cdf(x_t, t)
        low, high = torch.full_like(x_t, -12.0), torch.full_like(x_t, 12.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle, s) < rank
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low


class Fake:
    """A smooth network that is not the score of anything: it mixes pixels, and t in."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        self.calls += 1
        t = t.reshape(-1, 1, 1, 1)
        return (1.3 * x + t / 150).sin() + 0.4 * (x.roll(1, -1) * x).tanh()


def fake(schedule: str = "linear", *, clip: bool = False, predict: str = "v") -> Denoiser:
    return Denoiser(Fake(), DiffusionConfig(schedule=schedule, predict=predict), clip=clip)  # type: ignore[arg-type]


def start(n: int = 2, kind: str = "gaussian") -> tuple[Tensor, Noise]:
    noise = Noise(kind, range(5, 5 + n))
    return noise.draw((n, 1, 4, 4)), noise


def run(
    name: str,
    denoiser: Callable[..., Prediction],
    steps: int,
    spacing: str = "trailing",
    n: int = 2,
) -> list[Step]:
    x_T, noise = start(n)
    timesteps = denoiser.schedule.timesteps(steps, spacing)
    return list(SAMPLERS[name](denoiser, x_T, timesteps, noise=noise))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 10), ("uniform", 3), ("quadratic", 1)])
def test_steps(name, spacing, steps):
    denoiser = fake()
    timesteps = denoiser.schedule.timesteps(steps, spacing)
    walked = run(name, denoiser, steps, spacing)
    assert [s.t for s in walked] == [*timesteps, 0]
    assert [s.index for s in walked] == list(range(steps + 1))
    assert {s.total for s in walked} == {steps}
    assert torch.equal(walked[0].x_t, start()[0])
    for s in walked[:-1]:  # each shows one x_t, and what the network sees in this very x_t
        x0, eps = denoiser(s.x_t, torch.full((2,), s.t))
        assert torch.equal(s.x0_hat, x0)
        assert torch.equal(s.eps_hat, eps)
    assert torch.equal(walked[-1].x_t, walked[-1].x0_hat)
    assert torch.equal(walked[-1].x_t, walked[-2].x0_hat)


@pytest.mark.parametrize("name", SOLVERS)
def test_network_calls(name):
    """One a step. Heun's are two, but one where it moves as Euler: to 0, and from sigma > 200."""
    for schedule, heun in (("linear", 19), ("cosine", 18)):
        denoiser = fake(schedule)
        run(name, denoiser, 10)
        assert denoiser.model.calls == (heun if name == "heun" else 10)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
@pytest.mark.parametrize("name", SOLVERS)
def test_gaussian(name, schedule):
    """Data N(0.3, 0.5^2) come back with this mean and variance."""
    noise = Noise("gaussian", range(16))
    x_T = noise.draw((16, 1, 64, 64)).double()
    steps = schedule.timesteps(100, "quadratic")
    *_, last = SAMPLERS[name](Exact(schedule, (1, 0.3, 0.5)), x_T, steps, noise=noise)
    assert abs(last.x_t.mean() - 0.3) < 0.008  # standard error: 0.002
    assert abs(last.x_t.std() - 0.5) < 0.006  # standard error: 0.0014


@pytest.mark.parametrize("name", SOLVERS)
def test_mixture_in_few_steps(name):
    """20 steps of a cosine schedule, whose sigma of 20,000 is not for any solver to trip over."""
    noise = Noise("gaussian", range(16))
    x_T = noise.draw((16, 1, 64, 64)).double()
    exact = Exact(COSINE, *MIXTURE)
    *_, last = SAMPLERS[name](exact, x_T, COSINE.timesteps(20, "trailing"), noise=noise)
    assert abs(last.x_t.mean() - 0.17) < 0.03
    assert abs(last.x_t.std() - math.sqrt(0.3198)) < 0.05
    assert abs((last.x_t < -0.15).double().mean() - 0.3067) < 0.02


def error(name: str, steps: int, exact: Exact, x_T: Tensor, end: int) -> float:
    """RMS distance from the ODE's exact solution at t = end, after this many steps uniform in t."""
    T = exact.schedule.T
    timesteps = [T - (T - end) * i // steps for i in range(steps + 1)]
    *_, step, _ = SAMPLERS[name](exact, x_T, timesteps, noise=None)
    assert step.t == end
    return float((step.x_t - exact.flow(x_T, T, end)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2), ("unipc", 3)]
)
def test_order_of_convergence(name, order):
    """The error falls as steps^-order on a mixture's ODE.

    UniPC of order 2 has the order 3, thanks to its corrector (theorem 3.1). Measured at t = 400 of
    4000, not at 0, as the last step to 0 is of first order for all.
    """
    exact = Exact(Schedule.linear(4000, 2.5e-5, 0.005), *MIXTURE)
    x_T = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64).reshape(1, 1, 1, -1)
    errors = [error(name, steps, exact, x_T, 400) for steps in (150, 300, 600)]
    assert errors[-1] < 0.01
    for slope in (math.log2(a / b) for a, b in pairwise(errors)):
        assert order - 0.15 < slope < order + 0.15


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_first_steps_are_the_first_order_samplers(schedule, clip):
    denoiser = fake(schedule, clip=clip)
    x_T, _ = start()
    timesteps = denoiser.schedule.timesteps(8)

    def second(sampler: Callable[..., object]) -> Tensor:
        return list(sampler(denoiser, x_T, timesteps, noise=start()[1]))[1].x_t

    for name in ("dpmpp_2m", "unipc"):
        torch.testing.assert_close(second(SAMPLERS[name]), second(ddim), atol=1e-6, rtol=0)
    torch.testing.assert_close(second(SAMPLERS["dpmpp_2m_sde"]), second(ddpm), atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in theirs
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [4, 5, 10, 20, 50])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("name", SOLVERS)
def test_agrees_with_diffusers(name, schedule, steps, clip):
    """From the same noise, at every step of the way.

    What has to be aligned: their t counts from 0, so it is ours less 1; sigma has to end at zero;
    of their spacings "trailing" is ours. Their Heun carries x_t / sqrt(alpha_bar_t), and its
    init_noise_sigma takes x_T for noise alone, as if alpha_bar_T were 0. Where sigma is above 200
    it gets lost, and ours doesn't follow; so with a cosine schedule it starts one step later.
    They work in float32, hence the tolerance.
    """
    diffusers = pytest.importorskip("diffusers")
    denoiser = fake(schedule, clip=clip)
    timesteps = denoiser.schedule.timesteps(steps, "trailing")
    betas = denoiser.schedule.beta[1:].numpy()
    shared = {"trained_betas": betas, "timestep_spacing": "trailing", "prediction_type": "sample"}
    if name == "heun":
        timesteps = timesteps[schedule == "cosine" :]
        theirs = diffusers.HeunDiscreteScheduler(**shared)
        theirs.set_timesteps(timesteps=[t - 1 for t in timesteps])
    elif name == "unipc":
        theirs = diffusers.UniPCMultistepScheduler(solver_order=2, solver_type="bh2", **shared)
        theirs.set_timesteps(steps)
    else:
        kind = "sde-dpmsolver++" if name == "dpmpp_2m_sde" else "dpmsolver++"
        theirs = diffusers.DPMSolverMultistepScheduler(algorithm_type=kind, **shared)
        theirs.set_timesteps(steps)

    x, noise = start()
    if name == "heun":
        x = x * (theirs.sigmas[0] ** 2 + 1).sqrt()
    seen = {}  # x_t by t; the last counts, which is the corrected one of Heun's two
    for t in theirs.timesteps:
        seen[int(t) + 1] = x_t = theirs.scale_model_input(x, t)
        x0 = denoiser(x_t, torch.full((2,), int(t) + 1)).x0
        fresh = {"variance_noise": noise.like(x)} if name == "dpmpp_2m_sde" else {}
        x = theirs.step(x0, t, x, **fresh).prev_sample
    seen[0] = x

    x_T, noise = start()
    ours = list(SAMPLERS[name](denoiser, x_T, timesteps, noise=noise))
    assert [s.t for s in ours] == list(seen)
    assert max(float((s.x_t - seen[s.t]).abs().max()) for s in ours) < 2e-5


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_picture_does_not_depend_on_its_batch(name, kind):
    def pictures(seeds: range) -> Tensor:
        noise = Noise(kind, seeds)
        x_T = noise.draw((len(seeds), 1, 4, 4))
        *_, last = SAMPLERS[name](denoiser, x_T, denoiser.schedule.timesteps(7), noise=noise)
        return last.x_t

    denoiser = fake()
    batch = pictures(range(4))
    for seed in range(4):
        assert torch.equal(batch[seed : seed + 1], pictures(range(seed, seed + 1)))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SOLVERS)
def test_finite_with_a_cosine_schedule(name, spacing):
    for predict in ("eps", "v"):
        for steps in (1, 2, 3, 5, 10, 50):
            for step in run(name, fake("cosine", clip=True, predict=predict), steps, spacing):
                assert step.x_t.isfinite().all()
            assert step.x_t.abs().max() <= 1
