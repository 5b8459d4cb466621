"""Converts the colours of a picture to sRGB.

A file describes its colours by an ICC profile; a PNG may also give its gamma and primaries. Without
them, or if the profile is broken, the numbers are taken as sRGB, as browsers do.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# White and primaries of sRGB as in a PNG: x and y of white, red, green and blue.
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)

_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError)


def to_srgb(
    image: Image.Image, info: Mapping[Any, Any], profile: bytes | None = None
) -> Image.Image:
    """Convert a picture to sRGB, in RGB, or RGBA if it has transparency.

    If the file doesn't describe its colours, the picture is returned unchanged.

    Args:
        image: a picture of any mode with 8 bits.
        info: what Pillow found in the file.
        profile: the ICC profile, if it isn't in info.
    """
    profile = profile or info.get("icc_profile")
    if profile:
        return _by_profile(image, profile)
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, _LAB, _SRGB, outputMode="RGB") or image
    if ("gamma" in info or "chromaticity" in info) and "srgb" not in info:
        return _by_gamma(image, info.get("gamma") or 1 / 2.2, info.get("chromaticity") or SRGB)
    return image


_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        given = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = _SPACES[given.profile.xcolor_space]
        clear = image.has_transparency_data
        start = "RGBA" if clear else "RGB"
        if space == "RGB" and image.mode != "CMYK":
            image = image.convert(start)
        elif space == "L" and image.mode in ("1", "L", "LA", "La"):
            alpha = image.convert("LA").getchannel("A") if clear else None
            image = image.convert("L")
            return _with(_transformed(image, given), alpha)
        elif space != image.mode:  # the profile is for another kind of picture
            return image
        return _transformed(image, given)
    except (KeyError, *_BROKEN):
        return image


def _transformed(image: Image.Image, given: ImageCms.ImageCmsProfile) -> Image.Image:
    """Convert the picture to sRGB. If it is in sRGB already, return it exactly as it is."""
    mode = image.mode
    out = "RGBA" if mode == "RGBA" else "RGB"
    transform = ImageCms.buildTransform(given, _SRGB, mode, out)
    if mode in ("RGB", "RGBA", "L"):
        probe = _probe().convert(mode)
        changed = ImageCms.applyTransform(probe, transform)
        pair = [np.asarray(each.convert("RGB"), int) for each in (probe, changed or probe)]
        if abs(pair[0] - pair[1]).max() <= 2:
            return image
    return ImageCms.applyTransform(image, transform) or image


def _probe() -> Image.Image:
    """Sample colours from all over the RGB cube."""
    axis = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(axis, axis, axis), axis=-1)
    return Image.fromarray(cube.reshape(27, 27, 3))


def _with(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _by_gamma(image: Image.Image, gamma: float, chromaticity: tuple[float, ...]) -> Image.Image:
    """Convert by a PNG's chunks gAMA and cHRM: linear light is value ** (1 / gamma)."""
    usual = abs(gamma - 1 / 2.2) < 0.01  # browsers treat this as sRGB
    same = len(chromaticity) == 8 and np.allclose(chromaticity, SRGB, atol=0.005)
    sound = 0.1 < gamma < 10 and len(chromaticity) == 8 and min(chromaticity[1::2]) > 0
    if not sound or (usual and same):
        return image
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    levels = np.arange(256) / 255
    linear = _linear(levels) if usual else levels ** (1 / gamma)
    if same:
        table = np.rint(255 * _encoded(linear)).astype(int).tolist()
        return _with(image.convert("RGB").point(table * 3), alpha)
    try:
        to_linear_srgb = np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(chromaticity)
    except np.linalg.LinAlgError:
        return image
    pixels = np.array(image.convert("RGB"))
    for row in pixels:  # a row at a time, to save memory
        row[:] = np.rint(255 * _encoded(linear[row] @ to_linear_srgb.T))
    return _with(Image.fromarray(pixels), alpha)


def _linear(value: np.ndarray) -> np.ndarray:
    """sRGB values to linear light (IEC 61966-2-1), the inverse of `_encoded`."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB values (IEC 61966-2-1), both from 0 to 1."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_xyz(chromaticity: tuple[float, ...]) -> np.ndarray:
    """The (3, 3) matrix from linear red, green and blue to XYZ relative to white."""
    xy = np.array(chromaticity, float).reshape(4, 2)
    xyz = np.column_stack([xy, 1 - xy.sum(1)]) / xy[:, 1:]
    white, primaries = xyz[0], xyz[1:].T
    relative = primaries * np.linalg.solve(primaries, white)
    return relative / white[:, None]
