"""The numbers beside the player: they recompute each step."""

import json

import pytest
import torch

from ddpm_demo.config import SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Prediction, Schedule
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.updates import code, updates
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.player.source import sampler_code

CASES = [(name, {}) for name in SAMPLERS]
CASES += [("ddim", {"eta": 0.7}), ("ddpm", {"variance": "beta"})]


class Shrinks:
    """The exact denoiser of data that is N(0, 1/4) in each pixel."""

    def __init__(self, model, diffusion, **_):
        self.schedule = Schedule.from_config(diffusion)

    def __call__(self, x, t):
        ab = self.schedule.at(self.schedule.alpha_bar, t, x)
        x0 = x * ab.sqrt() * 0.25 / (0.25 * ab + 1 - ab)
        return Prediction(x0, (x - ab.sqrt() * x0) / (1 - ab).sqrt())


@pytest.mark.parametrize(("sampler", "options"), CASES)
def test_the_numbers_on_the_page_recompute_each_x_t(tiny, sampler, options):
    config = SampleConfig(sampler=sampler, steps=6, n=2, clip=False, labels=None, **options)
    checkpoint = tiny()
    said = json.loads(json.dumps(updates(checkpoint, config)))
    steps = list(generate(checkpoint, config, denoiser=Shrinks))
    assert said["t"] == [step.t for step in steps]
    ab = Schedule.from_config(checkpoint.diffusion).alpha_bar
    assert said["alpha_bar"] == pytest.approx([float(ab[step.t]) for step in steps])
    for step, after, line in zip(steps[:-1], steps[1:], said["lines"], strict=True):
        tensors = {term.name: term.tensor for term in after.line}
        seen = {"x_t": step.x_t, "x0_hat": step.x0_hat, "eps_hat": step.eps_hat}
        total = sum(c * seen.get(name, tensors[name]) for name, c in line)
        torch.testing.assert_close(total, after.x_t, rtol=0, atol=1e-5)


def test_ddim_keeps_the_share_of_signal_that_the_schedule_says(tiny):
    checkpoint = tiny()
    said = updates(checkpoint, SampleConfig(sampler="ddim", steps=5, labels=None))
    ab = Schedule.from_config(checkpoint.diffusion).alpha_bar
    for t, line in zip(said["t"][1:], said["lines"], strict=True):
        want = {"x0_hat": float(ab[t]) ** 0.5, "eps_hat": (1 - float(ab[t])) ** 0.5}
        assert dict(line) == pytest.approx(want, abs=1e-6)


def test_a_stream_brings_the_noise_of_each_step_after_its_frame(tiny):
    config = SampleConfig(sampler="ddpm", steps=4, n=2, labels=None)
    checkpoint = tiny()
    steps = list(generate(checkpoint, config))
    about = {"panels": player.STEP_PANELS, "updates": updates(checkpoint, config)}
    messages = [json.loads(m) for m in player.stream(steps, fps=1e9, **about) if isinstance(m, str)]
    run = messages[0]["run"]
    assert run["updates"]["z"] == player.PANES["z"]
    assert run["panes"] == ["x_t", "x0_hat", "eps_hat"]
    z = [pair for message in messages for pair in message.get("z", [])]
    assert [index for index, _ in z] == [0, 1, 2]  # the last step adds none
    frames = [f for message in messages for f in message["frames"]]
    assert [f["step"] for f in frames] == [0, 1, 2, 3, 4]


def test_the_code_is_the_function_that_runs():
    text, file = code("ddpm")
    assert text.startswith("def ddpm(")
    assert file == "ddpm_demo/diffusion/samplers/ddpm.py"
    assert sampler_code("ddpm") == {"text": text, "file": file}


@pytest.mark.parametrize("name", ["os", None, 3, ["ddpm"], "../ddpm"])
def test_there_is_code_of_samplers_alone(name):
    assert "Sampler must be" in sampler_code(name)["error"]
