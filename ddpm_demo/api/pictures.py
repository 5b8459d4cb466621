"""Pictures and films for Python and notebooks."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.diffusion import Noise, Schedule, Step, jump
from ddpm_demo.machine.files import expand, write_atomically
from ddpm_demo.media import convert, encode
from ddpm_demo.media.open import open_image


@dataclass(frozen=True)
class Pictures:
    """Generated pictures. A notebook shows them as a grid.

    Attributes:
        x: (N, C, H, W) float32, about -1 to 1.
        about: the metadata of their file, which is enough to make them again.
    """

    x: Tensor
    about: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def pixels(self) -> np.ndarray:
        """The pictures as (N, H, W, C) uint8."""
        return convert.to_uint8(self.x)

    def save(self, path: str | Path, scale: int = 4) -> None:
        """Write them as a grid. The metadata of a PNG says how they were made."""
        encode.write(expand(path), [convert.grid(self.pixels, scale=scale)], metadata=self.about)

    def _repr_png_(self) -> bytes:
        return encode.encode([convert.grid(self.pixels, scale=4)], "png", metadata=self.about)


@dataclass(frozen=True)
class Film:
    """A film of a run. A notebook plays it."""

    gif: bytes

    def save(self, path: str | Path) -> None:
        write_atomically(expand(path), self.gif)

    def _repr_html_(self) -> str:
        return f'<img src="data:image/gif;base64,{base64.b64encode(self.gif).decode()}">'


def noise(
    picture: str | Path | Image.Image | Tensor,
    t: int,
    schedule: str | Schedule = "linear",
    *,
    size: int = 128,
    seed: int = 0,
    kind: str = "gaussian",
) -> Pictures:
    """Noise a picture by t steps of the forward process (Ho et al. 2020, eq. 4).

    Args:
        picture: a file, an opened picture, or (B, C, H, W) in [-1, 1].
        t: 0 to T.
        schedule: "linear" or "cosine", each with T = 1000, or your own `Schedule`.
        size: files and opened pictures are cut square and resized to this many pixels.
        seed: the seed of the noise; picture k has seed + k.
        kind: the kind of noise, "gaussian" or "laplace".

    >>> noise(torch.zeros(1, 3, 8, 8), 1000, "cosine").x.shape
    torch.Size([1, 3, 8, 8])
    """
    if isinstance(schedule, str):
        schedule = Schedule.from_config(DiffusionConfig(schedule=schedule))
    if isinstance(picture, Tensor):
        x_0 = picture
    else:
        opened = picture if isinstance(picture, Image.Image) else open_image(expand(picture))
        x_0 = convert.to_tensor(np.asarray(convert.square(opened.convert("RGB"), size))[None])
    return Pictures(jump(schedule, x_0, t, Noise(kind, range(seed, seed + len(x_0)))).x_t)


def grid(pictures: Pictures | Tensor, columns: int | None = None, scale: int = 4) -> Image.Image:
    """Lay out pictures side by side on one sheet.

    >>> grid(torch.zeros(4, 1, 8, 8), scale=1).size
    (17, 17)
    """
    x = pictures.x if isinstance(pictures, Pictures) else pictures
    return Image.fromarray(convert.grid(convert.to_uint8(x), columns, scale=scale))


def film(steps: Iterable[Step], scale: int = 4, fps: float = 15) -> Film:
    """Make a film of the steps that `Model.steps` yields, one frame each."""
    frames = [convert.grid(convert.to_uint8(step.x_t), scale=scale) for step in steps]
    return Film(encode.encode(frames, "gif", fps=fps))
