"""What a run costs, against runs that are counted."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from ddpm_demo.config import SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.inference import timing as budget
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.timing import (
    Measured,
    estimate,
    measure,
    measured,
    per_call,
    pictures,
    plan,
    sooner,
    spoken,
)
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.ui.generate import handlers as tab
from ddpm_demo.ui.server import runtime


@pytest.mark.parametrize("labels", [None, (1, 0)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_calls_and_pictures_are_those_of_a_run(
    sampler: str, labels: tuple[int, ...] | None, tiny: Callable[..., Checkpoint]
) -> None:
    """Of a linear schedule, where Heun's method never falls back on Euler's."""
    asked: list[int] = []

    class Counting(Denoiser):
        def _network(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            asked.append(len(x))
            return super()._network(x, *rest)

    config = SampleConfig(sampler, steps=7, n=3, labels=labels, guidance=2.0)
    checkpoint = tiny(T=1000, schedule="linear", num_classes=2)
    list(generate(checkpoint, config, denoiser=Counting))
    assert asked == [pictures(config)] * SAMPLERS[sampler].calls(7)


def test_guidance_of_1_is_one_pass() -> None:
    assert pictures(SampleConfig(n=5, labels=(1,), guidance=1.0)) == 5
    assert pictures(SampleConfig(n=5, guidance=2.0)) == 5


class Slow(Denoiser):
    """A network that takes 20 ms, and 5 ms more for each picture; the first time 0.1 s more.

    By the clock of the fixture, which nothing else moves.
    """

    now, first = 0.0, True

    def _network(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        Slow.now += 0.02 + 0.005 * len(x) + 0.1 * self.first
        self.first = False
        return super()._network(x, *rest)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: Slow.now))


@pytest.mark.usefixtures("clock")
def test_measure(tiny: Callable[..., Checkpoint]) -> None:
    seconds = measure(tiny(), Slow)
    assert list(seconds) == [1, 4, 16]
    for n in (1, 4, 10, 16, 64):
        expected = 0.02 + 0.005 * n if n <= 16 else 0.1 * n / 16
        assert per_call(seconds, n) == pytest.approx(expected)


@pytest.mark.usefixtures("clock")
def test_a_slow_network_is_called_twice(tiny: Callable[..., Checkpoint]) -> None:
    assert measure(tiny(), Slow, patience=0.01) == pytest.approx({1: 0.025})


@pytest.mark.usefixtures("clock")
def test_a_first_call_that_prepares_weights_does_not_count(tiny: Callable[..., Checkpoint]) -> None:
    """Even if there is no time for another, and where something else takes the cores."""

    seen: set[int] = set()

    class Preparing(Slow):
        def _network(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            Slow.now += 1.0 * (len(x) not in seen)
            seen.add(len(x))
            return super()._network(x, *rest)

    seconds = measure(tiny(), Preparing, patience=1.2)
    assert len(seen) == 3
    assert seconds == pytest.approx({1: 0.025, 4: 0.04, 16: 0.16})


def test_estimate() -> None:
    seconds = {1: 0.01, 4: 0.025, 16: 0.1}
    assert estimate(SampleConfig("ddim", 50, n=16), seconds) == pytest.approx(5.0)
    assert estimate(SampleConfig("heun", 50, n=16), seconds) == pytest.approx(9.9)
    assert estimate(SampleConfig("ddim", 10, n=2), seconds) == pytest.approx(0.15)
    guided = SampleConfig("ddim", 10, n=16, labels=(0,), guidance=2.0)
    assert estimate(guided, seconds) == pytest.approx(2.0)
    assert estimate(SampleConfig("ddim", 10, n=3), {1: 2.0}) == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "ms", "most", "own", "expected"),
    [
        (2, 100, 1000, SampleConfig("ddpm", 120), ("ddpm", 20)),
        (12, 100, 1000, SampleConfig("ddpm", 120), ("ddpm", 120)),
        (60, 100, 1000, SampleConfig("ddpm", 120), ("ddpm", 600)),
        (60, 10, 930, SampleConfig("ddpm", 120), ("ddpm", 930)),
        (60, 10, 50, SampleConfig("ddpm", 120), ("ddpm", 50)),
        (2, 100, 10, SampleConfig("ddpm", 120), ("ddpm", 10)),
        (1, 20, 1000, SampleConfig("heun", 25), ("heun", 25)),
        (1, 21, 1000, SampleConfig("heun", 25), ("heun", 24)),
        (3, 20, 1000, SampleConfig("heun", 25), ("heun", 75)),
        (2, 9000, 1000, None, ("ddim", 1)),
        (5, 100, 1000, None, ("ddim", 50)),
    ],
)
def test_plan(
    seconds: float, ms: float, most: int, own: SampleConfig | None, expected: tuple[str, int]
) -> None:
    """Without a table: the model's own sampler, at any number of steps."""
    run = plan(seconds, ms, most, own)
    assert (run.sampler, run.steps) == expected
    assert run.steps in (1, most) or estimate(run, {run.n: ms / 1000}) <= seconds + 1e-9


TABLE = [
    {"sampler": "unipc", "spacing": "karras", "steps": 5, "calls": 5, "distance": 9.0},
    {"sampler": "unipc", "spacing": "trailing", "steps": 35, "calls": 35, "distance": 6.0},
    {"sampler": "heun", "spacing": "logsnr", "steps": 18, "calls": 35, "distance": 5.0},
    {"sampler": "ddpm", "spacing": "uniform", "steps": 35, "calls": 35, "distance": 4.0},
    {"sampler": "ddim", "spacing": "uniform", "steps": 40, "calls": 40, "distance": 7.0, "n": 500},
]


@pytest.mark.parametrize(
    ("calls", "most", "expected"),
    [
        (4, 1000, ("ddpm", "trailing", 4)),  # nothing measured is as short
        (5, 1000, ("unipc", "karras", 5)),
        (34, 1000, ("unipc", "karras", 5)),
        (35, 1000, ("ddpm", "uniform", 35)),
        (60, 1000, ("ddpm", "uniform", 35)),  # longer is not always better
        (60, 20, ("heun", "logsnr", 18)),
        (120, 1000, ("ddpm", "trailing", 120)),
    ],
)
def test_plan_by_what_was_measured(
    calls: int, most: int, expected: tuple[str, str, int], tiny: Callable[..., Checkpoint]
) -> None:
    checkpoint = tiny()
    checkpoint.info["samplers"] = TABLE
    run = plan(calls, 1000, most, SampleConfig("ddpm", 120), measured(checkpoint))
    assert (run.sampler, run.spacing, run.steps) == expected


@pytest.mark.parametrize("bad", [{"sampler": "best"}, {"steps": 0}, {"spacing": None}, {"x": 1}])
def test_a_bad_table_is_refused(bad: dict[str, Any], tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    checkpoint.info["samplers"] = [TABLE[0] | bad]
    with pytest.raises(ValueError, match=r"must be|known are"):
        measured(checkpoint)
    assert measured(tiny()) == []
    assert Measured(**TABLE[0]).calls == 5  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("n", "took", "expected"),
    [
        (16, 1.0, {1: 0.5, 4: 1.0, 16: 1.0}),
        (4, 0.1, {1: 0.1, 4: 0.1, 16: 0.4}),
        (32, 2.0, {1: 0.5, 4: 1.0, 16: 1.0}),  # two calls of 16
        (1, 9.0, {1: 0.5, 4: 2.0, 16: 8.0}),  # slower than known: nothing is learned
    ],
)
def test_a_quick_call_corrects_what_was_measured(
    n: int, took: float, expected: dict[int, float]
) -> None:
    assert sooner({1: 0.5, 4: 2.0, 16: 8.0}, n, took) == expected


def test_a_run_corrects_its_estimate(
    tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_seconds", {"tiny": {1: 900.0, 4: 900.0, 16: 900.0}})
    config = SampleConfig("ddim", 4, n=4)
    steps = runtime.timed("tiny", config, generate(tiny(), config))
    next(steps)
    list(steps)
    known = runtime.seconds("tiny")
    assert known[1] == known[4] < 900
    assert known[16] == 4 * known[4]


# The visitor's choice of a time

SAMPLED = (0, "trailing", "beta_tilde", 0.0, True)
"""The controls between the number of pictures and the class."""


@pytest.mark.parametrize("own", [SampleConfig("ddim", 50), SampleConfig("heun", 10)])
@pytest.mark.parametrize("seconds", [1, 4])
@pytest.mark.usefixtures("clock")
def test_a_run_takes_the_time_that_was_picked(
    seconds: int, own: SampleConfig, tiny: Callable[..., Checkpoint]
) -> None:
    checkpoint, n = tiny(T=1000, schedule="linear"), 4
    ms = 1000 * per_call(measure(checkpoint, Slow), n)
    run = plan(seconds, ms, 1000, own)
    start = Slow.now
    list(generate(checkpoint, run.but(n=n), denoiser=Slow))
    assert seconds - 0.1 < Slow.now - start < seconds + 0.2  # the first call is slower


def test_the_tab_chooses_by_the_time(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models have T = 20, and a call with 16 pictures takes 0.2 s."""
    measured = {1: 0.02, 4: 0.06, 16: 0.2}
    monkeypatch.setattr(runtime, "_seconds", {"tiny": measured, "classy": measured})
    monkeypatch.setattr(runtime, "model", runtime.Models(load_checkpoint, 10**9))

    def fit(name: str, seconds: Any, n: Any, label: Any = "any", guidance: Any = 1.0) -> Any:
        rest = (n, *SAMPLED, [label], guidance, 20)
        sampler, steps, _ = tab.fit({}, name, seconds, "ddim", 20, *rest)
        said = tab.how_long({}, name, sampler, steps, *rest)
        return sampler, steps, said.partition(" for ")[0]

    assert fit("tiny", 2, 16) == ("ddim", 10, "About 2.0 s")
    assert fit("tiny", 2, 32) == ("ddim", 5, "About 2.0 s")
    assert fit("tiny", 5, 16) == ("ddim", 20, "About 4.0 s")  # no more than T
    assert fit("tiny", 15, 16) == ("ddim", 20, "About 4.0 s")
    assert fit("classy", 2, 16, "kind 1", 3.0) == ("ddim", 5, "About 2.0 s")
    skip = gr.skip()
    for name, seconds, n in (("tiny", 0, 16), ("tiny", 7, 16), ("tiny", None, 16), ("no", 2, 16)):
        assert tab.fit({}, name, seconds, "ddim", 20, n, *SAMPLED, ["any"], 1.0, 20) == (
            skip,
            skip,
            skip,
        )
    for bad in ({"n": "many"}, {"guidance": 99}, {"start": 21}, {"start": None}):
        usual = {"n": 16, "guidance": 1.0, "start": 20} | bad
        values = (usual["n"], *SAMPLED, ["any"], usual["guidance"], usual["start"])
        assert tab.fit({}, "tiny", 2, "ddim", 20, *values) == (skip, skip, skip)
