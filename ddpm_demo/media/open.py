"""Opens the pictures that people bring, in any usual format."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ddpm_demo.media.colour import to_srgb
from ddpm_demo.media.png import without_ballast

MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000
KINDS = (  # Pillow's names of the formats that we accept
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000"),
    *("PPM", "TGA"),
)

_READABLE = "use a PNG, JPEG, WebP, GIF, BMP or TIFF picture"
_FOREIGN = {  # marks in the first bytes of files that people may take for pictures
    b"<svg": "an SVG drawing",
    b"%PDF": "a PDF",
    b"PK\3\4": "a zip archive",
    **dict.fromkeys((b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1"), "HEIC"),
    **dict.fromkeys((b"ftypqt", b"ftypisom", b"ftypmp4", b"ftypM4V", b"\x1aE\xdf\xa3"), "a film"),
    b"\xff\x0a": "JPEG XL",
    b"JXL \r\n": "JPEG XL",
    b"git-lfs": "a pointer of Git LFS",
}
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A picture can't be used. The message is one sentence to show to the user."""


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of picture files that the installed Pillow reads, such as ".png" and ".jpg"."""
    Image.init()
    kinds = {kind for kind in KINDS if kind in Image.OPEN}
    kinds -= {kind for kind in ("WEBP", "AVIF") if not features.check(kind.lower())}
    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in kinds)


def open_image(
    source: str | Path | bytes | BinaryIO | Image.Image, *, at_least: int | None = None
) -> Image.Image:
    """Open any picture that Pillow reads, as an upright, opaque RGB picture without metadata.

    Colours are converted to sRGB, EXIF orientation is applied, and transparency becomes white. Of
    an animation, the first frame counts. Grey levels of 16 bits are scaled from [0, 65535];
    `_eight_bits` says what happens to 32 bits.

    Args:
        source: A path, the bytes of a file, an open binary file, or a picture.
        at_least: If given, a JPEG may be decoded at a smaller size, but no side gets shorter than
            twice this many pixels. For a photograph, this is much faster.

    Raises:
        ImageError: The source is missing, larger than MAX_BYTES or MAX_PIXELS, not a picture,
            or damaged.
    """
    name, data, profile = "the picture", b"", None
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            name, data = _read(source)
            needed, profile = without_ballast(data)
            image = Image.open(io.BytesIO(needed))
        width, height = image.size
        # Refuse a decompression bomb here: only the header has been read so far.
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{name} is {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed"
            )
        if image.format == "EPS":  # a program; Pillow would let Ghostscript run it
            raise ImageError(f"{name} is PostScript, not a picture; {_READABLE}")
        if at_least is not None and image is not source:
            image.draft(None, (2 * at_least, 2 * at_least))
        image.load()
        turn = _orientation(image)
        image = _opaque(image, profile)
        if turn is not None:
            image = image.transpose(turn)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is {_foreign(data)}; {_READABLE}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS:,} pixels allowed") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = f" ({error})" if str(error) else ""
        raise ImageError(f"{name} is damaged or cannot be read{reason}; {_READABLE}") from error
    image.info = {}  # don't pass on where and when a photograph was taken
    return image


def _foreign(data: bytes) -> str:
    """Say what a file is that Pillow can't read, from its first bytes."""
    for mark, kind in _FOREIGN.items():
        if mark in data[: 1024 if len(mark) > 3 else 2]:
            return f"{kind}, which cannot be read"
    return "not a picture"


def _read(source: str | Path | bytes | BinaryIO) -> tuple[str, bytes]:
    """Return what to call the source, and its bytes."""
    name = "the file"
    try:
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, (str, Path)):
            name = f"'{Path(source).name or source}'"
            if (path := Path(source)).exists() and not path.is_file() and not path.is_dir():
                raise ImageError(f"{name} cannot be read: it is a pipe or a device, not a file")
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read: {reason}") from error
    if not data:
        raise ImageError(f"{name} is empty; {_READABLE}")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} is larger than the {MAX_BYTES // 10**6} MB allowed")
    return name, data


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """How to turn a picture upright.

    ImageOps.exif_transpose would fail if other EXIF tags are damaged.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # it raises nearly anything on damaged EXIF, but the pixels are sound
        return None


def _opaque(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert any mode to RGB in sRGB, on white."""
    info = image.info
    key = info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # from a PNG of 16 bits; Pillow keeps 8 bits
        info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    image = to_srgb(image, info, profile)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image)
    return page


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit or float grey to 8 bits. (Pillow would clip it at 255.)

    16 bits span [0, 65535]. For 32 bits and floats, the file doesn't say the range. We take the
    smallest of [0, 1], [0, 255] and [0, 65535] that holds all values. If none does, the range is
    [0, max]. With negative values, it is [min, max].
    """
    values = np.array(image, dtype=np.float64)
    values[~np.isfinite(values)] = 0
    low, high = 0.0, 65535.0
    if image.mode in ("I", "F"):
        low, high = min(0.0, values.min()), values.max()
        if low == 0:
            high = next((top for top in (1.0, 255.0, 65535.0) if high <= top), high)
    values -= low
    values *= 255 / ((high - low) or 1)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
