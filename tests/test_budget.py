"""What a run costs, against runs that are counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ddpm_demo.budget import calls, estimate, measure, per_call, pictures, plan, spoken
from ddpm_demo.checkpoint import Checkpoint
from ddpm_demo.config import SAMPLER_NAMES, SampleConfig
from ddpm_demo.denoiser import Denoiser
from ddpm_demo.generate import generate


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_calls_and_pictures_are_those_of_a_run(
    sampler: str, label: int | None, tiny: Callable[..., Checkpoint]
) -> None:
    """Of a linear schedule, where Heun's method never falls back on Euler's."""
    asked: list[int] = []

    class Counting(Denoiser):
        def _network(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            asked.append(len(x))
            return super()._network(x, *rest)

    config = SampleConfig(sampler, steps=7, n=3, label=label, guidance=2.0)
    checkpoint = tiny(T=1000, schedule="linear", num_classes=2)
    list(generate(checkpoint, config, denoiser=Counting))
    assert asked == [pictures(config)] * calls(sampler, 7)


def test_guidance_of_1_is_one_pass() -> None:
    assert pictures(SampleConfig(n=5, label=1, guidance=1.0)) == 5
    assert pictures(SampleConfig(n=5, guidance=2.0)) == 5


class Clock:
    """Shows a time that only moves when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Denoiser]:
    """A network that takes 20 ms, and 5 ms more for each picture; the first time 0.1 s more."""
    clock = Clock()
    monkeypatch.setattr("ddpm_demo.budget.time", clock)

    class Slow(Denoiser):
        first = True

        def _network(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            clock.now += 0.02 + 0.005 * len(x) + 0.1 * self.first
            self.first = False
            return super()._network(x, *rest)

    return Slow


def test_measure(slow: type[Denoiser], tiny: Callable[..., Checkpoint]) -> None:
    seconds = measure(tiny(), slow)
    assert list(seconds) == [1, 4, 16]
    for n in (1, 4, 10, 16, 64):
        expected = 0.02 + 0.005 * n if n <= 16 else 0.1 * n / 16
        assert per_call(seconds, n) == pytest.approx(expected)


def test_a_slow_network_is_called_once(
    slow: type[Denoiser], tiny: Callable[..., Checkpoint]
) -> None:
    assert list(measure(tiny(), slow, patience=0.01)) == [1]


def test_estimate() -> None:
    seconds = {1: 0.01, 4: 0.025, 16: 0.1}
    assert estimate(SampleConfig("ddim", 50, n=16), seconds) == pytest.approx(5.0)
    assert estimate(SampleConfig("heun", 50, n=16), seconds) == pytest.approx(9.9)
    assert estimate(SampleConfig("ddim", 10, n=2), seconds) == pytest.approx(0.15)
    guided = SampleConfig("ddim", 10, n=16, label=0, guidance=2.0)
    assert estimate(guided, seconds) == pytest.approx(2.0)
    assert estimate(SampleConfig("ddim", 10, n=3), {1: 2.0}) == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "ms", "most", "own", "expected"),
    [
        (2, 100, 1000, SampleConfig("ddpm", 120), ("dpmpp_2m", 20)),
        (12, 100, 1000, SampleConfig("ddpm", 120), ("ddpm", 120)),
        (60, 100, 1000, SampleConfig("ddpm", 120), ("ddpm", 600)),
        (60, 10, 930, SampleConfig("ddpm", 120), ("ddpm", 930)),
        (60, 10, 50, SampleConfig("ddpm", 120), ("ddpm", 50)),
        (2, 100, 10, SampleConfig("ddpm", 120), ("dpmpp_2m", 10)),
        (1, 20, 1000, SampleConfig("heun", 25), ("heun", 25)),
        (1, 21, 1000, SampleConfig("heun", 25), ("dpmpp_2m", 47)),
        (3, 20, 1000, SampleConfig("heun", 25), ("heun", 75)),
        (2, 9000, 1000, None, ("dpmpp_2m", 1)),
        (5, 100, 1000, None, ("ddim", 50)),
    ],
)
def test_plan(
    seconds: float, ms: float, most: int, own: SampleConfig | None, expected: tuple[str, int]
) -> None:
    assert plan(seconds, ms, most, own) == expected
    run = SampleConfig(*expected)
    assert run.steps in (1, most) or estimate(run, {run.n: ms / 1000}) <= seconds + 1e-9


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.001, "0.01 s"),
        (0.04, "0.04 s"),
        (0.0949, "0.09 s"),
        (0.0951, "0.1 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (101, "2 min"),
        (720, "12 min"),
        (9000, "2.5 h"),
    ],
)
def test_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
