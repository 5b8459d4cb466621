"""From a checkpoint and settings to a run: the right sampler, seeds, labels, and refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_demo.config import NOISES, SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Denoiser, Noise
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.models.checkpoint import Checkpoint

Tiny = Callable[..., Checkpoint]


def sample(checkpoint: Checkpoint, **settings: Any) -> Tensor:
    *_, last = generate(checkpoint, SampleConfig(**({"steps": 5, "n": 2} | settings)))
    return last.x_t


def by_hand(
    checkpoint: Checkpoint, sampler: str, seeds: list[int], clip: bool = True, **options: Any
) -> Tensor:
    y = options.pop("y", None)
    guidance = options.pop("guidance", 1.0)
    spacing = options.pop("spacing", "trailing")
    denoiser = Denoiser(checkpoint.model, checkpoint.diffusion, clip=clip, y=y, guidance=guidance)
    noise = Noise(checkpoint.diffusion.noise, seeds)
    x_T = noise.draw((len(seeds), 1, 8, 8))
    timesteps = denoiser.schedule.timesteps(5, spacing, options.pop("start", None))
    *_, last = SAMPLERS[sampler](denoiser, x_T, timesteps, noise=noise, **options)
    return last.x_t


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_with_every_noise(sampler: str, noise: str, tiny: Tiny) -> None:
    checkpoint = tiny(noise=noise)
    got = sample(checkpoint, sampler=sampler, seed=7)
    assert torch.equal(got, by_hand(checkpoint, sampler, [7, 8]))
    assert not torch.equal(got, sample(checkpoint, sampler=sampler, seed=8))


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"sampler": "ddpm", "variance": "beta"}, {"variance": "beta"}),
        ({"sampler": "ddim", "eta": 0.5}, {"eta": 0.5}),
        ({"sampler": "ddim", "clip": False}, {"clip": False}),
        ({"sampler": "ddim", "spacing": "quadratic"}, {"spacing": "quadratic"}),
        ({"sampler": "ddim", "start": 15}, {"start": 15}),
    ],
)
def test_settings_arrive(settings: dict[str, Any], options: dict[str, Any], tiny: Tiny) -> None:
    checkpoint = tiny()
    wanted = by_hand(checkpoint, settings["sampler"], [0, 1], **options)
    assert torch.equal(sample(checkpoint, **settings), wanted)
    assert not torch.equal(sample(checkpoint, sampler=settings["sampler"]), wanted)


def test_labels_and_guidance(tiny: Tiny) -> None:
    checkpoint = tiny(num_classes=3)
    y = torch.tensor([1, 1])
    free, led = sample(checkpoint), sample(checkpoint, labels=(1,))
    assert torch.equal(free, by_hand(checkpoint, "ddim", [0, 1]))
    assert torch.equal(led, by_hand(checkpoint, "ddim", [0, 1], y=y))
    guided = sample(checkpoint, labels=(1,), guidance=4.0)
    assert torch.equal(guided, by_hand(checkpoint, "ddim", [0, 1], y=y, guidance=4.0))
    assert not torch.equal(free, led)
    assert not torch.equal(led, guided)
    assert torch.equal(free, sample(checkpoint, guidance=4.0))  # nothing to be guided by


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_its_seed_s(sampler: str, tiny: Tiny) -> None:
    checkpoint = tiny()
    batch = sample(checkpoint, sampler=sampler, n=4, seed=10)
    for k in range(4):
        alone = sample(checkpoint, sampler=sampler, n=1, seed=10 + k)
        assert (batch[k] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("classes", "settings", "says"),
    [
        (0, {"steps": 21}, "Steps must be a whole number from 1 to 20, not 21."),
        (0, {"labels": (0,)}, "Label must be left out, not 0: the model has no classes."),
        (3, {"labels": (0, 3)}, "Label must be a class of the model, 0 to 2, not 3."),
    ],
)
def test_refused_by_the_call(classes: int, settings: dict[str, Any], says: str, tiny: Tiny) -> None:
    checkpoint = tiny(num_classes=classes)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        generate(checkpoint, SampleConfig(**({"steps": 5} | settings)))
    assert str(caught.value) == says


def test_metadata_says_how_to_make_it_again() -> None:
    config = SampleConfig("ddpm", 77, 3, 42, "uniform", "beta", 0.0, False, (2, 0), 1.5, 15)
    about = RunSpec("mnist", config).to_metadata()
    assert about == {
        "program": "ddpm_demo",
        "model": "mnist",
        "sampler": "ddpm",
        "steps": "77",
        "n": "3",
        "seed": "42",
        "spacing": "uniform",
        "variance": "beta",
        "eta": "0.0",
        "clip": "False",
        "class": "2,0",
        "guidance": "1.5",
        "start": "15",
    }


def test_a_picture_of_classes_in_turn_can_be_made_again_alone(tiny: Tiny) -> None:
    checkpoint = tiny(num_classes=3)
    batch = sample(checkpoint, labels=(2, 0), n=5, seed=3)
    for k, label in enumerate([0, 2, 0, 2, 0]):  # seeds 3 to 7
        for again in ({"labels": (2, 0)}, {"labels": (label,)}):
            alone = sample(checkpoint, n=1, seed=3 + k, **again)
            assert (batch[k] - alone[0]).abs().max() < 1e-4  # what shared batches promise


def test_a_model_with_classes_draws_them_in_turn(tiny: Tiny) -> None:
    assert tiny().best.labels is None
    checkpoint = tiny(num_classes=3)
    assert checkpoint.best.labels == (0, 1, 2)
    checkpoint.info["sample"] = {"labels": None}
    assert checkpoint.best.labels is None
    checkpoint.info["sample"] = {"label": 2}  # in checkpoints from before
    assert checkpoint.best.labels == (2,)
    checkpoint.info |= {"sample": {"steps": 7}, "classes": []}  # of names that nobody told
    assert (checkpoint.best.labels, checkpoint.best.steps) == (None, 7)


@pytest.mark.parametrize(
    ("name", "only", "labels"),
    [("run", "kind 1", (1,)), ("net-kind 2", None, (2,)), ("net-all", None, (0, 1, 2))],
)
def test_a_fine_tuned_model_draws_its_class(
    name: str, only: str | None, labels: tuple[int, ...], tiny: Tiny
) -> None:
    checkpoint = tiny(num_classes=3)
    checkpoint.info |= {"base": "net", "train": {"only": only}}
    checkpoint.name = name
    assert checkpoint.best.labels == labels
