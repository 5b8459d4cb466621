"""Start a sampler from a checkpoint and a `SampleConfig`. The app and the CLI share this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from ddpm_demo.config import SampleConfig
from ddpm_demo.config.samplers import SAMPLERS
from ddpm_demo.config.setting import require
from ddpm_demo.diffusion.denoiser import Denoiser
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.diffusion.walk import Intervention, State, Step
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.inference.spec import defaults as defaults
from ddpm_demo.models.checkpoint import Checkpoint


class Start(NamedTuple):
    """Where a run begins, with its own seeds instead of those of its config.

    Attributes:
        state: the state of a step of another run; None begins from pure noise.
        seeds: the seed of each picture's noise.
    """

    state: State | None
    seeds: Sequence[int]


def timesteps_of(checkpoint: Checkpoint, config: SampleConfig) -> list[int]:
    """The falling timesteps of a run.

    A distilled model has its own lists, one for each number of steps that it learned.
    """
    few = checkpoint.info.get("few") or {}
    if config.timesteps is None and str(config.steps) in few and config.start is None:
        return list(few[str(config.steps)])
    return Schedule.from_config(checkpoint.diffusion).chosen(config)


def generate(
    checkpoint: Checkpoint,
    config: SampleConfig,
    *,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
    interventions: Sequence[Intervention] = (),
    state: State | Start | None = None,
) -> Iterator[Step]:
    """The steps of one run, on the device that the checkpoint's network is on.

    Args:
        bf16: run the network under bfloat16 autocast.
        denoiser: makes the denoiser. `batching.BatchedDenoiser` shares its passes with other runs.
        interventions: what to change on the way (see `diffusion.interventions`).
        state: the state of a step of another run. The run goes on from there, not from noise.

    Raises:
        ValueError: there are more steps than the model's T, or the model lacks a label. The call
            itself raises it, not the first step.
    """
    model, diffusion = checkpoint.model.config, checkpoint.diffusion
    for label in config.labels or ():
        allowed, why = f"a class of the model, 0 to {model.num_classes - 1}", ""
        if not model.num_classes:
            allowed, why = "left out", "the model has no classes"
        require(label < model.num_classes, "label", label, allowed, why)
    device = next(checkpoint.model.parameters()).device
    labels = config.label_of_each()
    y = None if labels is None else torch.tensor(labels, device=device)
    denoise = denoiser(
        checkpoint.model, diffusion, clip=config.clip, y=y, guidance=config.guidance, bf16=bf16
    )
    seeds: Sequence[int] = range(config.seed, config.seed + config.n)
    if isinstance(state, Start):
        state, seeds = state
    noise = Noise(diffusion.noise, seeds)
    x_T = noise.draw((config.n, model.channels, model.size, model.size)).to(device)
    denoise.interventions = interventions
    sampler = SAMPLERS[config.sampler]
    return sampler(
        denoise,
        x_T if state is None else state,
        timesteps_of(checkpoint, config),
        noise=noise,
        interventions=interventions,
        **{name: getattr(config, name) for name in sampler.options},
    )


def metadata(model: str, config: SampleConfig, classes: Sequence[str] = ()) -> dict[str, str]:
    """The metadata of a file made from a run. It is enough to make the file again.

    Args:
        classes: the model's class names, to write names instead of numbers.
    """
    return RunSpec(model, config).to_metadata(classes)
