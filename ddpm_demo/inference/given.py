"""Pictures that a run is given: to begin with one, noised (SDEdit), or to keep a part of one.

In a `RunSpec` each is the base64 of a PNG of the model's own size, so that a run can be made again
from what its files say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm_demo.config import ModelConfig, SampleConfig
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.inference.changes import GIVEN
from ddpm_demo.media import convert, encode
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.setting import require, whole_numbers

ROW = 8  # t at which one run begins, at most
CHARS = 500_000  # of a picture's text, at most


def fitted(picture: Image.Image, model: ModelConfig) -> Tensor:
    """A picture as a model takes it: cut square, resized, and grey where the model is.

    Returns:
        (1, C, H, W) in [-1, 1], in the 256 levels of a PNG.
    """
    mode = "L" if model.channels == 1 else "RGB"
    pixels = np.asarray(convert.square(picture.convert("RGB"), model.size).convert(mode))
    return convert.to_tensor(pixels.reshape(1, model.size, model.size, model.channels))


def write(x: Tensor) -> str:
    """A picture (1, C, H, W) as a text, in 256 levels."""
    frame = np.broadcast_to(convert.to_uint8(x)[0], (*x.shape[-2:], 3))
    return base64.b64encode(encode.encode([frame], "png")).decode()


def read(texts: Sequence[str], model: ModelConfig) -> list[Tensor]:
    """The pictures of a run, as `fitted` returns them.

    Raises:
        ValueError: too many, one that is no picture, or one of another size than the model's.
    """
    require(len(texts) <= GIVEN, "number of pictures given", len(texts), f"up to {GIVEN}")
    found = []
    for text in texts:
        require(len(text) <= CHARS, "picture", f"{len(text):,} characters", f"up to {CHARS:,}")
        try:
            image = open_image(base64.b64decode(text, validate=True))
        except binascii.Error:
            require(False, "picture", text[:40], "the base64 of a PNG")
        size = (model.size, model.size)
        require(image.size == size, "size of the picture", image.size, f"the model's, {size}")
        found.append(fitted(image, model))
    return found


def begun(
    checkpoint: Checkpoint, config: SampleConfig, ts: Sequence[int], steps: int = 0
) -> tuple[SampleConfig, str]:
    """The run that begins with the given picture at each of several t, and the change for it.

    Picture k of the run begins at the k-th t, from the highest down. With several classes to choose
    from, none is taken: the picture has the class that it has.

    Args:
        ts: 1 to 8 of them, from 1 to T.
        steps: from the highest t to 0; 0: the config's share for that part of the way.

    Raises:
        ValueError: a t that is not allowed, or more steps than there are t.
    """
    T = checkpoint.diffusion.T
    ok = whole_numbers(tuple(ts), 1, T) and 1 <= len(ts) <= ROW
    require(ok, "t to begin at", ", ".join(map(str, ts))[:60], f"1 to {ROW} numbers from 1 to {T}")
    falling = sorted(set(ts), reverse=True)
    first = falling[0]
    share = min(first, max(1, round(config.steps * first / (config.start or T))))
    schedule = Schedule.from_config(checkpoint.diffusion)
    way = schedule.timesteps(steps or share, config.spacing, first)
    labels = config.labels if config.labels and len(config.labels) == 1 else None
    config = config.but(
        n=len(falling), labels=labels, timesteps=tuple(sorted({*way, *falling}, reverse=True))
    )
    return config, f"picture={','.join(map(str, falling))}:{first}"
