"""From a checkpoint and a `SampleConfig` to a running sampler: what the app and the CLI share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ddpm_demo.config import SampleConfig, from_dict, require
from ddpm_demo.diffusion.denoiser import Denoiser
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.samplers.sampling import SAMPLERS, Step
from ddpm_demo.models.checkpoint import Checkpoint


def defaults(checkpoint: Checkpoint) -> SampleConfig:
    """How a model is best sampled, as far as its checkpoint says so."""
    return from_dict(SampleConfig, checkpoint.info.get("sample") or {})


def generate(
    checkpoint: Checkpoint,
    config: SampleConfig,
    *,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
) -> Iterator[Step]:
    """The steps of one run, on the device that the checkpoint's network is on.

    Args:
        denoiser: makes what the sampler asks; `batching.BatchedDenoiser` shares passes with others.

    Raises:
        ValueError: more steps than the model's T, or a label that it doesn't have. Raised by the
            call itself, before the first step is asked for.
    """
    model, diffusion = checkpoint.model.config, checkpoint.diffusion
    if config.label is not None:
        names = f"a class of the model, 0 to {model.num_classes - 1}"
        allowed = names if model.num_classes else "none, as the model has no classes"
        require(0 <= config.label < model.num_classes, "label", config.label, allowed)
    device = next(checkpoint.model.parameters()).device
    y = None
    if config.label is not None:
        y = torch.full((config.n,), config.label, device=device)
    denoise = denoiser(
        checkpoint.model, diffusion, clip=config.clip, y=y, guidance=config.guidance, bf16=bf16
    )
    noise = Noise(diffusion.noise, range(config.seed, config.seed + config.n))
    x_T = noise.draw((config.n, model.channels, model.size, model.size)).to(device)
    timesteps = denoise.schedule.timesteps(config.steps, config.spacing, config.start)
    own: dict[str, dict[str, Any]] = {
        "ddpm": {"variance": config.variance},
        "ddim": {"eta": config.eta},
    }
    return SAMPLERS[config.sampler](
        denoise, x_T, timesteps, noise=noise, **own.get(config.sampler, {})
    )


def metadata(model: str, config: SampleConfig) -> dict[str, str]:
    """What a file made from a run says of itself: enough to make it again."""
    about = {"program": "ddpm_demo", "model": model}
    about |= {k: str(v) for k, v in dataclasses.asdict(config).items()}
    return about
