"""The run that the app makes when it starts."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddpm_demo.diffusion import Denoiser
from ddpm_demo.inference.generate import generate
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.ui.generate import first_run
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runs import runs


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Checkpoint]) -> Checkpoint:
    checkpoint = tiny()
    checkpoint.info["sample"] = {"sampler": "ddim", "steps": 3, "n": 4}
    monkeypatch.setattr(first_run, "_told", {})
    monkeypatch.setattr(first_run, "facts", lambda name: checkpoint)
    monkeypatch.setattr(first_run, "give_way", lambda: iter(()))
    monkeypatch.setattr(runtime, "start", lambda name: None)
    monkeypatch.setattr(runtime, "model", lambda name: checkpoint)
    monkeypatch.setattr(runtime, "denoiser", Denoiser)
    return checkpoint


def test_a_page_is_told_the_whole_run_as_the_model_is_sampled(model: Checkpoint) -> None:
    assert first_run.first_run() == {}  # none is made yet
    first_run.announce()
    assert "words" in first_run.first_run()  # a page that is early waits
    first_run.make("tiny")
    told = first_run.first_run()
    *_, last = generate(model, model.best)
    steps = [frame["step"] for frame in told["frames"]]  # quick ones may be left out
    assert (steps[0], steps[-1]) == (0, 3)
    assert runs.get(told["run"]["id"])
    raw = base64.b64decode(told["frames"][-1]["d"])
    shown = np.frombuffer(raw, np.uint8).reshape(3, *to_uint8(last.x_t).shape)
    assert np.array_equal(shown[0], to_uint8(last.x_t))
    assert "in 3 steps" in told["run"]["title"]


def test_meanwhile_it_is_told_how_far_the_run_is(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(first_run, "give_way", lambda: told.append(first_run.first_run()) or [])
    first_run.make("tiny")
    assert told[1] == {"words": "A first run is being made: step 1 of 3."}


def test_a_run_that_fails_leaves_nothing(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("broken")

    monkeypatch.setattr(runtime, "denoiser", fail)
    with pytest.raises(FloatingPointError):
        first_run.make("tiny")
    assert first_run.first_run() == {}
