"""Converts pictures between tensors and arrays, and lays them out on sheets.

The model works with float tensors (B, C, H, W) in [-1, 1]. Pictures to show are uint8 arrays
(B, H, W, C), where 0 stands for x = -1 and 255 for x = 1. A *frame* is one uint8 picture (H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

_WHITE = 255


def to_uint8(x: Tensor) -> np.ndarray:
    """Turn x (B, C, H, W), of any float type and device, into uint8 (B, H, W, C).

    Values are rounded, and those outside [-1, 1] are clamped.
    """
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_tensor(images: np.ndarray) -> Tensor:
    """Turn uint8 images (B, H, W, C) into float32 (B, C, H, W) in [-1, 1]."""
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32, order="C"))
    return x.div_(127.5).sub_(1)


def square(image: Image.Image, size: int) -> Image.Image:
    """Cut the largest square from the centre and resize it to (size, size)."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def grid(
    images: np.ndarray, columns: int | None = None, pad: int = 1, scale: int = 1
) -> np.ndarray:
    """Lay out pictures on a white sheet, row by row.

    Args:
        images: uint8 (N, H, W, C), with C = 1 or 3.
        columns: Pictures in a row; by default the sheet is about square.
        pad: Pixels between pictures, before scaling.
        scale: Every pixel becomes scale x scale pixels.

    Returns:
        One frame, uint8 (H', W', 3).
    """
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[3] not in (1, 3):
        raise ValueError(f"images must be (N, H, W, 1 or 3) with N > 0, got {images.shape}")
    n, h, w, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + pad) - pad, columns * (w + pad) - pad, 3), _WHITE, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (h + pad), i % columns * (w + pad)
        sheet[y : y + h, x : x + w] = image
    return enlarge(sheet, scale)


def cut(
    sheet: np.ndarray, n: int, columns: int | None = None, pad: int = 1, scale: int = 1
) -> np.ndarray:
    """Cut a sheet that `grid` laid out into its n pictures, uint8 (N, H, W, C)."""
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = sheet[scale // 2 :: scale, scale // 2 :: scale]
    h, w = ((side + pad) // k for side, k in zip(sheet.shape, (rows, columns), strict=False))
    corners = [(i // columns * h, i % columns * w) for i in range(n)]
    return np.stack([sheet[y : y + h - pad, x : x + w - pad] for y, x in corners])


def strip(
    frames: Sequence[np.ndarray], labels: Sequence[str] | None = None, scale: int = 1
) -> np.ndarray:
    """Lay out frames side by side, with a label under each, as papers show a chain.

    Args:
        frames: uint8 (H, W, 3) each; their tops are aligned.
        labels: One line of Latin text per frame, or None.
        scale: Every pixel of a frame becomes scale x scale pixels; labels stay sharp.

    Returns:
        One frame, uint8 (H', W', 3).
    """
    gap = 4
    tiles = [enlarge(frame, scale) for frame in frames]
    height = max(tile.shape[0] for tile in tiles)
    size = min(24, max(10, height // 8))
    font = ImageFont.load_default(size)
    texts = list(labels or [""] * len(tiles))
    widths = [
        max(tile.shape[1], math.ceil(font.getlength(text)))
        for tile, text in zip(tiles, texts, strict=True)
    ]
    footer = math.ceil(1.5 * size) if labels else 0
    page = Image.new("RGB", (sum(widths) + gap * (len(tiles) - 1), height + footer), "white")
    draw = ImageDraw.Draw(page)
    x = 0
    for tile, text, width in zip(tiles, texts, widths, strict=True):
        page.paste(Image.fromarray(tile), (x + (width - tile.shape[1]) // 2, 0))
        draw.text((x + width / 2, height + gap), text, fill="black", font=font, anchor="ma")
        x += width + gap
    return np.array(page)


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Make every pixel of a picture (H, W, ...) scale x scale pixels."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
