"""Folders that diffusers writes, and how far our network is from its; for several test files."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.utils import logging

from ddpm_demo.models.checkpoint import Checkpoint

logging.set_verbosity_error()
logging.disable_progress_bar()

PUBLISHED = {  # what the first published DDPMs say, at small widths
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "downsample_padding": 0,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def blocks(attention: str) -> dict[str, Any]:
    """Block types by level: "-A" is attention at the second of two."""
    return {
        "down_block_types": ["Attn" * (a == "A") + "DownBlock2D" for a in attention],
        "up_block_types": ["Attn" * (a == "A") + "UpBlock2D" for a in attention[::-1]],
    }


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
def prediction_error(ours: Checkpoint, theirs: UNet2DModel) -> float:
    """The largest difference between two networks' answers to noise, at several t."""
    c = ours.model.config
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, c.channels, c.size, c.size, generator=g)
    t = torch.tensor([0, 7, 999])
    expected = theirs.eval()(x, t).sample
    assert expected.std() > 0.1  # not a network of zeros
    return error(ours.model(x, t), expected)


class Malice:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)
