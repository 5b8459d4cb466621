"""The samples that show how far a run has come."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.diffusion import Denoiser, Noise
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.nn.unet import UNet

N, STEPS = 16, 25  # the numbers of pictures and steps of a preview


def preview(
    model: UNet,
    diffusion: DiffusionConfig,
    *,
    by_class: bool = False,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
) -> Tensor:
    """Draw (16, C, H, W) samples in [-1, 1] by DDIM, from the seeds 0 to 15.

    Args:
        by_class: draw the classes in turn; otherwise draw the null class.
    """
    config, device = model.config, next(model.parameters()).device
    noise = Noise(diffusion.noise, range(N))
    x_T = noise.draw((N, config.channels, config.size, config.size)).to(device)
    y = None
    if config.num_classes and by_class:
        y = torch.arange(N, device=device) % config.num_classes
    denoise = denoiser(model, diffusion, y=y, bf16=bf16)
    timesteps = denoise.schedule.timesteps(min(STEPS, diffusion.T))
    *_, last = ddim(denoise, x_T, timesteps, noise=noise)
    return last.x_t
