"""Pictures that a run is given, to begin with one, noised (SDEdit), or to keep a part of one.

In a `RunSpec`, each picture is the base64 of a PNG in the model's own size. So a file's metadata is
enough to make its run again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_demo.config import ModelConfig, SampleConfig, number, require, whole_numbers
from ddpm_demo.diffusion import Denoiser, Noise, Schedule, jump
from ddpm_demo.inference.changes import CELLS, GIVEN, write_mask
from ddpm_demo.media import convert, encode
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint

ROW = 8  # the most starting t in one run
CHARS = 500_000  # the most characters in a picture's text


def fitted(picture: Image.Image, model: ModelConfig) -> Tensor:
    """Fit a picture to a model: cut it square, resize it, and make it grey if the model is.

    Returns:
        (1, C, H, W) in [-1, 1], with the 256 levels of a PNG.
    """
    mode = "L" if model.channels == 1 else "RGB"
    pixels = np.asarray(convert.square(picture.convert("RGB"), model.size).convert(mode))
    return convert.to_tensor(pixels.reshape(1, model.size, model.size, model.channels))


def mask_of(picture: Image.Image, model: ModelConfig) -> Tensor:
    """A mask that is True where a picture is white; bool (side, side).

    The side is the model's size, but at most 32.

    Raises:
        ValueError: the picture is white nowhere.
    """
    side = min(model.size, CELLS)
    mask = torch.from_numpy(np.asarray(convert.square(picture.convert("L"), side)) > 127)
    why = "the white part is made anew"
    require(bool(mask.any()), "mask", None, "white in some part", why)
    return mask


def kept(mask: Tensor, T: int, times: int = 1) -> str:
    """The text of the change that remakes the given picture inside a mask and keeps the rest.

    Args:
        times: how often each step is walked.
    """
    return f"keep={times}:{T}:{write_mask(mask)}:0"


def write(x: Tensor) -> str:
    """Write a picture, (1, C, H, W) in [-1, 1], as text. It is rounded to 256 levels."""
    frame = np.broadcast_to(convert.to_uint8(x)[0], (*x.shape[-2:], 3))
    return base64.b64encode(encode.encode([frame], "png")).decode()


def read(texts: Sequence[str], model: ModelConfig) -> list[Tensor]:
    """Read the pictures of a run, each as `fitted` returns it.

    Raises:
        ValueError: there are too many, or one is not a picture of the model's size.
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
        require(image.size == size, "size of the picture", image.size, f"the model's {size}")
        found.append(fitted(image, model))
    return found


def begun(
    checkpoint: Checkpoint, config: SampleConfig, ts: Sequence[int], steps: int = 0
) -> tuple[SampleConfig, str]:
    """A run that begins with the given picture at each of several t, and the change for it.

    Picture k of the run begins at the k-th t, counted from the highest. If the config asks for
    several classes, the run asks for none: the given picture already has its class.

    Args:
        ts: 1 to 8 numbers from 1 to T.
        steps: how many steps lead from the highest t to 0. With 0, they are the part of the
            config's steps that lies below the highest t.

    Raises:
        ValueError: a t is not allowed, or there are more steps than t.
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


@dataclass(frozen=True)
class Shot:
    """A picture noised to t, and a network's prediction for it. All pictures are (1, C, H, W).

    Attributes:
        signal, sigma: the factors in x_t = signal x_0 + sigma eps.
        eps_hat, x0_hat: the network's prediction, not clipped.
    """

    t: int
    signal: float
    sigma: float
    eps: Tensor
    x_t: Tensor
    eps_hat: Tensor
    x0_hat: Tensor

    @property
    def loss(self) -> float:
        """The mean of (eps - eps_hat)^2. Training makes it small."""
        return float((self.eps - self.eps_hat).square().mean())

    def apart(self, x_0: Tensor) -> float:
        """The mean of (x_0 - x0_hat)^2."""
        return float((x_0 - self.x0_hat.clamp(-1, 1)).square().mean())


def one_shot(
    checkpoint: Checkpoint,
    x_0: Tensor,
    t: int,
    seed: int = 0,
    *,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
) -> Shot:
    """Draw eps, make x_t, and predict eps_hat: algorithm 1 of Ho et al. 2020, without its gradient.

    Args:
        x_0: (1, C, H, W) in [-1, 1], as `fitted` returns it.
        t: 1 to T.
        seed: the seed of eps.
        bf16, denoiser: as for `generate`.

    Raises:
        ValueError: t is outside 1..T.
    """
    process = checkpoint.diffusion
    number("t", t, 1, process.T, whole=True)
    schedule = Schedule.from_config(process)
    noised = jump(schedule, x_0, t, Noise(process.noise, [seed]))
    device = next(checkpoint.model.parameters()).device
    ask = denoiser(checkpoint.model, process, clip=False, bf16=bf16)
    seen = ask(noised.x_t.to(device), torch.tensor([t]))
    bar = float(schedule.alpha_bar[t])
    parts = noised.eps, noised.x_t, seen.eps.cpu(), seen.x0.cpu()
    return Shot(t, bar**0.5, (1 - bar) ** 0.5, *parts)
