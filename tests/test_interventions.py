"""Changing a run on the way, taking it out and giving it back, against closed forms."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddpm_demo.config import SAMPLERS, SCHEDULES, SPACINGS, DiffusionConfig, SampleConfig
from ddpm_demo.diffusion import (
    At,
    Denoiser,
    Edit,
    GuidanceInterval,
    Inpaint,
    Intervention,
    Noise,
    NoiseAtEnd,
    Prediction,
    ScaleEps,
    Schedule,
    Step,
    StopRun,
    Terms,
    total,
)
from ddpm_demo.diffusion.samplers.ddim import ddim, invert
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher
from ddpm_demo.inference.generate import generate
from ddpm_demo.models.checkpoint import Checkpoint

OPTIONS: dict[str, dict[str, Any]] = {"ddim": {"eta": 0.5}}
SHAPE = (2, 1, 4, 4)


class Best:
    """E[x_0 | x_t] for pixels from N(0.3, 0.5^2)."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        ab = self.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        x0 = 0.3 + 0.25 * ab.sqrt() / (0.25 * ab + 1 - ab) * (x - 0.3 * ab.sqrt())
        return Prediction(x0, (x - ab.sqrt() * x0) / (1 - ab).sqrt())


BEST = Best(Schedule.cosine(1000))
WAY = BEST.schedule.timesteps(8, "logsnr", 968)


def run(name: str, *interventions: Intervention, start: Any = None, way: Any = WAY) -> list[Step]:
    noise = Noise("gaussian", [5, 6])
    x_T = noise.draw(SHAPE).double()
    options = OPTIONS.get(name, {})
    start = x_T if start is None else start
    found = SAMPLERS[name](BEST, start, way, noise=noise, interventions=interventions, **options)
    return list(found)


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("name", SAMPLERS)
def test_doing_nothing_changes_no_bit(name: str) -> None:
    for a, b in zip(run(name), run(name, Intervention()), strict=True):
        assert torch.equal(a.x_t, b.x_t)
        assert torch.equal(a.x0_hat, b.x0_hat)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_terms_sum_to_the_next_x(name: str) -> None:
    first, *rest = run(name)
    assert first.line == ()
    for step in rest:
        assert worst(total(step.line), step.x_t) < 1e-9
        assert len({term.name for term in step.line}) == len(step.line)
    noisy = any(term.name == "z" for step in rest for term in step.line)
    assert noisy == SAMPLERS[name].adds_noise


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_goes_on_from_any_step(name: str, tiny: Callable[..., Checkpoint]) -> None:
    """Bit for bit, with a network, from a state that was written and read."""
    checkpoint = tiny()
    config = SampleConfig(name, 6, n=3, seed=4, eta=0.5 if name == "ddim" else 0.0)
    whole = list(generate(checkpoint, config))
    for step in whole:
        state = pickle.loads(pickle.dumps(step.state))
        assert state.t == step.t
        again = list(generate(checkpoint, config, state=state))
        assert [s.index for s in again] == [s.index for s in whole[step.index :]]
        for a, b in zip(again, whole[step.index :], strict=True):
            assert torch.equal(a.x_t, b.x_t)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_goes_on_in_shared_batches(name: str, tiny: Callable[..., Checkpoint]) -> None:
    checkpoint, batcher = tiny(), Batcher()
    config = SampleConfig(name, 5, n=2, eta=0.5 if name == "ddim" else 0.0)
    whole = list(generate(checkpoint, config))

    def shared(*args: Any, **options: Any) -> Denoiser:
        return BatchedDenoiser(batcher, *args, **options)

    runs = [generate(checkpoint, config, state=whole[k].state, denoiser=shared) for k in (1, 3)]
    for branch in runs:
        *_, last = branch
        assert worst(last.x_t, whole[-1].x_t) < 1e-4


def test_a_branch_with_new_noise_is_another_picture(tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    config = SampleConfig("ddpm", 6, n=2)
    whole = list(generate(checkpoint, config))
    state = whole[2].state
    assert state is not None
    *_, other = generate(checkpoint, config.but(seed=9), state=replace(state, drawn=0))
    assert worst(other.x_t, whole[-1].x_t) > 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_edit(name: str) -> None:
    """Inside the mask at that step, and not a pixel or step more."""
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    plain, edited = run(name), run(name, Edit(WAY[3], mask, lambda x: x.flip(-1)))
    assert all(torch.equal(a.x_t, b.x_t) for a, b in zip(plain[:3], edited[:3], strict=True))
    assert torch.equal(edited[3].x_t[..., :2, :], plain[3].x_t[..., :2, :].flip(-1))
    assert torch.equal(edited[3].x_t[..., 2:, :], plain[3].x_t[..., 2:, :])


def test_z_can_be_negated_scaled_and_left_out() -> None:
    plain = run("ddpm")
    for factor in (0.0, -1.0, 2.0):
        changed = run("ddpm", Terms("z", factor))
        (z,) = (term for term in plain[1].line if term.name == "z")
        wanted = plain[1].x_t + (factor - 1) * z.coefficient * z.tensor
        assert worst(changed[1].x_t, wanted) < 1e-12
    assert torch.equal(run("heun", Terms("z", 0))[-1].x_t, run("heun")[-1].x_t)


def test_noise_at_the_last_step() -> None:
    plain, bug = run("ddpm"), run("ddpm", NoiseAtEnd())
    assert torch.equal(plain[-2].x_t, bug[-2].x_t)
    sigma = math.sqrt(1 - float(BEST.schedule.alpha_bar[WAY[-1]]))
    assert bug[-1].line[-1].coefficient == pytest.approx(sigma)
    assert 0 < worst(plain[-1].x_t, bug[-1].x_t) < 6 * sigma


@pytest.mark.parametrize("name", SAMPLERS)
def test_scaled_eps(name: str) -> None:
    plain, scaled = run(name), run(name, ScaleEps(1.1))
    assert worst(scaled[0].eps_hat, 1.1 * plain[0].eps_hat) < 1e-12
    for step in scaled[:-1]:  # x0_hat and eps_hat are still those of x_t
        ab = float(BEST.schedule.alpha_bar[step.t])
        assert (
            worst(step.x_t, math.sqrt(ab) * step.x0_hat + math.sqrt(1 - ab) * step.eps_hat) < 1e-9
        )
    assert worst(plain[-1].x_t, scaled[-1].x_t) > 0.01


def test_another_aim() -> None:
    """A sampler that is told s - 20, a bug of some ports, moves as one whose walk goes there."""

    class Early(Intervention):
        def aim(self, t: int, s: int) -> int:
            return max(s - 20, 0)

    wanted = run("ddim", way=[900, 380])[1].x_t
    assert torch.equal(run("ddim", Early(), way=[900, 400])[1].x_t, wanted)


def test_on_step_sees_every_step_and_may_stop() -> None:
    seen: list[int] = []

    class Watch(Intervention):
        def on_step(self, step: Step) -> None:
            seen.append(step.t)
            if step.t == WAY[4]:
                raise StopRun

    steps = run("unipc", Watch())
    assert [s.t for s in steps] == seen == WAY[:5]


@pytest.mark.parametrize("resample", [1, 3])
def test_inpainting_keeps_what_is_known(resample: int) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    known = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    calls: list[int] = []

    class Count(Intervention):
        def edit(self, at: At) -> Tensor:
            calls.append(at.t)
            return at.x

    *_, last = run("ddpm", Count(), Inpaint(known, mask, resample))
    assert torch.equal(last.x_t[..., :2], known.double().expand(SHAPE)[..., :2])
    assert worst(last.x_t[..., 2:], known.expand(SHAPE)[..., 2:].double()) > 0.1
    assert len(calls) == resample * (len(WAY) - 1) + 1  # the step to 0 is walked once
    for step in run("ddpm", Inpaint(known, mask))[:-1]:  # drawn from q(x_t | x_0): 4 sigma
        ab = float(BEST.schedule.alpha_bar[step.t])
        off = step.x_t[..., :2] - math.sqrt(ab) * known.expand(SHAPE)[..., :2].double()
        assert off.abs().max() < 4 * math.sqrt(1 - ab)


def test_guidance_on_an_interval(tiny: Callable[..., Checkpoint]) -> None:
    """Outside it the run is plain conditioning, and costs as much."""
    checkpoint, sizes = tiny(num_classes=3), []

    class Counting(Denoiser):
        def _network(self, x: Tensor, *rest: Any) -> Tensor:
            sizes.append(len(x))
            return super()._network(x, *rest)

    config = SampleConfig("ddim", 5, n=2, labels=(1,), guidance=3.0)
    options: dict[str, Any] = {"denoiser": Counting}
    every = [s.x_t for s in generate(checkpoint, config, **options)]
    none = [s.x_t for s in generate(checkpoint, config.but(guidance=1.0), **options)]
    t = [s.t for s in generate(checkpoint, config)]
    sizes.clear()
    part = GuidanceInterval(t[1], t[0])
    some = [s.x_t for s in generate(checkpoint, config, interventions=[part], **options)]
    assert sizes == [4, 4, 2, 2, 2]
    assert torch.equal(some[2], every[2])
    nowhere = [GuidanceInterval(0, 0)]
    off = [s.x_t for s in generate(checkpoint, config, interventions=nowhere, **options)]
    assert all(torch.equal(a, b) for a, b in zip(off, none, strict=True))


def test_guidance_opened(tiny: Callable[..., Checkpoint]) -> None:
    found: list[tuple[int, float]] = []

    class Open(Intervention):
        def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor:
            found.append((t, worst(raw, uncond + 3 * (cond - uncond))))
            return cond

    checkpoint = tiny(num_classes=3)
    config = SampleConfig("ddim", 4, n=2, labels=(1,), guidance=3.0)
    *steps, last = generate(checkpoint, config, interventions=[Open()])
    assert found == [(s.t, 0.0) for s in steps]
    *_, conditional = generate(checkpoint, config.but(guidance=1.0))
    assert worst(last.x_t, conditional.x_t) < 1e-4


def test_inversion_and_back() -> None:
    """Exact with a few rounds; with one, nearer the more steps there are."""
    x_0 = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4)

    def back(steps: int, rounds: int) -> float:
        way = BEST.schedule.timesteps(steps, "uniform", 900)
        *_, top = invert(BEST, x_0, way, rounds=rounds)
        assert top.t == 900
        *_, last = ddim(BEST, top.x_t, way, noise=Noise("gaussian", [0]))
        return worst(last.x_t, x_0)

    assert back(50, 12) < 1e-4
    assert back(400, 1) < back(50, 1) / 4


def betas(low: float, high: float) -> st.SearchStrategy[float]:
    logs = st.floats(math.log(low), math.log(high))
    return logs.map(lambda x: min(max(math.exp(x), low), high))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    spacing=st.sampled_from(SPACINGS),
    kind=st.sampled_from(SCHEDULES),
    T=st.sampled_from([10, 11, 100, 500, 1000, 4000]),
    ends=st.tuples(betas(1e-8, 0.999), betas(1e-8, 0.999)),
    predict=st.sampled_from(["eps", "x0", "v"]),
    data=st.data(),
)
def test_every_allowed_way_can_be_walked(
    name: str, spacing: str, kind: str, T: int, ends: Any, predict: str, data: Any
) -> None:
    steps = data.draw(st.integers(1, min(T, 12)))
    start = data.draw(st.none() | st.integers(steps, T))
    low, high = sorted(ends)
    process = DiffusionConfig(T, kind, low, high, predict=predict)

    def network(x: Tensor, t: Tensor, _y: Any) -> Tensor:
        return torch.sin(2 * x + t.reshape(-1, 1, 1, 1) / 90)

    denoiser = Denoiser(network, process)  # type: ignore[arg-type]
    noise = Noise("gaussian", [1])
    way = denoiser.schedule.timesteps(steps, spacing, start)
    assert len(way) == steps
    *_, last = SAMPLERS[name](denoiser, noise.draw((1, 1, 2, 2)), way, noise=noise)
    assert last.x_t.isfinite().all()
    assert last.x_t.abs().max() <= 1


@pytest.mark.parametrize(("T", "beta"), [(1000, 0.26), (500, 0.47), (4000, 0.07), (100, 0.999)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_that_leaves_no_signal(name: str, T: int, beta: float) -> None:
    """alpha_bar reaches its floor, where the multistep samplers once divided by 0."""
    best = Best(Schedule.linear(T, 1e-4, beta))
    noise = Noise("gaussian", range(64))
    way = best.schedule.timesteps(99, "logsnr")
    *_, last = SAMPLERS[name](best, noise.draw((64, 1, 4, 4)).double(), way, noise=noise)
    assert abs(float(last.x_t.mean()) - 0.3) < 0.2
    assert 0.2 < float(last.x_t.std()) < 0.8
