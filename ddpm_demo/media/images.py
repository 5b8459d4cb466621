"""Pictures: from tensors, from files that people bring, and to PNG, GIF and MP4.

The model sees float tensors (B, C, H, W) in [-1, 1]; everything here shows uint8 arrays
(B, H, W, C), where 0 is x = -1 and 255 is x = 1. A *frame* is one uint8 picture (H, W, 3).
"""

from __future__ import annotations

import io
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000
KINDS = ("png", "gif", "mp4")

_WHITE = 255
_READABLE = "use a PNG, JPEG, WebP, GIF, BMP or TIFF picture"
_FOREIGN = {b"<svg": "an SVG drawing", b"%PDF": "a PDF", b"ftyphei": "HEIC", b"ftypmif1": "HEIC"}
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
    """A picture that cannot be used; the message is one sentence to show to the user."""


def to_uint8(x: Tensor) -> np.ndarray:
    """Turn x (B, C, H, W), any float type and device, into uint8 (B, H, W, C), rounded.

    Values outside [-1, 1] are clamped.
    """
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_tensor(images: np.ndarray) -> Tensor:
    """Turn uint8 images (B, H, W, C) into float32 (B, C, H, W) in [-1, 1]."""
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32, order="C"))
    return x.div_(127.5).sub_(1)


def open_image(
    source: str | Path | bytes | BinaryIO | Image.Image, *, at_least: int | None = None
) -> Image.Image:
    """Open any picture that Pillow reads, as an upright, opaque RGB picture without metadata.

    EXIF orientation is applied, transparency is laid on white, and of an animation the first
    frame is taken. Grey levels of 16 bits are scaled from [0, 65535]; for 32 bits, which files
    use for all sorts of ranges, see `_eight_bits`.

    Args:
        source: A path, the bytes of a file, an open binary file, or a picture.
        at_least: If given, a JPEG may be decoded at a fraction of its size, with no side
            shorter than twice this number of pixels: much faster for a photograph.

    Raises:
        ImageError: The source is missing, larger than MAX_BYTES or MAX_PIXELS, not a picture,
            or damaged.
    """
    name, data = "the picture", b""
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            name, data = _read(source)
            image = Image.open(io.BytesIO(data))
        width, height = image.size
        # The header is enough to refuse a bomb: nothing has been decoded so far.
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{name} is {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed"
            )
        if image.format == "EPS":  # a program: Pillow would hand it to Ghostscript to be run
            raise ImageError(f"{name} is PostScript, not a picture; {_READABLE}")
        if at_least is not None and image is not source:
            image.draft(None, (2 * at_least, 2 * at_least))
        image.load()
        # Not ImageOps.exif_transpose, which fails where the other EXIF tags are damaged.
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        image = _opaque(image)
        if turn is not None:
            image = image.transpose(turn)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        start = data[:1024]
        kind = next((kind for mark, kind in _FOREIGN.items() if mark in start), "not a picture")
        raise ImageError(f"{name} is {kind}, which cannot be read; {_READABLE}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS:,} pixels allowed") from error
    except Exception as error:  # on damaged files decoders raise nearly anything
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or cannot be read ({reason}); {_READABLE}") from error
    image.info = {}  # where and when a photograph was taken must not travel on
    return image


def _read(source: str | Path | bytes | BinaryIO) -> tuple[str, bytes]:
    """Return what to call the source, and its bytes."""
    name = "the file"
    try:
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, (str, Path)):
            name = f"'{Path(source).name}'"
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


def _opaque(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, on white."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image)
    return page


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit or float grey to 8 bits (Pillow would clip it at 255).

    16 bits span [0, 65535]. Integers of 32 bits and floats say nothing of their range, so it is
    taken to be the smallest of [0, 1], [0, 255] and [0, 65535] that holds all values; failing
    that, [0, max], or [min, max] if there are negative ones.
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


def square(image: Image.Image, size: int) -> Image.Image:
    """Cut the largest square from the centre and resize it to (size, size)."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def grid(
    images: np.ndarray, columns: int | None = None, pad: int = 1, scale: int = 1
) -> np.ndarray:
    """Lay out pictures on a white sheet, row by row.

    Args:
        images: uint8 (N, H, W, C), with C = 1 or 3.
        columns: Pictures in a row; by default the sheet is as square as can be.
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
    return _enlarge(sheet, scale)


def cut(
    sheet: np.ndarray, n: int, columns: int | None = None, pad: int = 1, scale: int = 1
) -> np.ndarray:
    """The n pictures of a sheet that `grid` laid out, uint8 (N, H, W, C)."""
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = sheet[scale // 2 :: scale, scale // 2 :: scale]
    h, w = ((side + pad) // k for side, k in zip(sheet.shape, (rows, columns), strict=False))
    corners = [(i // columns * h, i % columns * w) for i in range(n)]
    return np.stack([sheet[y : y + h - pad, x : x + w - pad] for y, x in corners])


def strip(
    frames: Sequence[np.ndarray], labels: Sequence[str] | None = None, scale: int = 1
) -> np.ndarray:
    """Lay out frames side by side, as papers print a chain, with a label under each.

    Args:
        frames: uint8 (H, W, 3) each; their tops are aligned.
        labels: One line of Latin text per frame, or None.
        scale: Every pixel of a frame becomes scale x scale pixels; labels stay sharp.

    Returns:
        One frame, uint8 (H', W', 3).
    """
    gap = 4
    tiles = [_enlarge(frame, scale) for frame in frames]
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


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def encode(
    frames: Sequence[np.ndarray],
    kind: str,
    *,
    fps: float = 15,
    hold: float = 1.5,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Encode one picture or a film as a file, in memory.

    A PNG holds one frame, exactly. A GIF loops and has 256 colours, so a grey film is exact and
    any other is not; equal frames in a row become one longer frame. An MP4 (H.264) plays nearly
    everywhere, in slides too; small frames are enlarged.

    Args:
        frames: uint8 (H, W, 3) each, all of one shape.
        kind: One of KINDS.
        fps: Frames a second; a GIF plays at most 50.
        hold: Seconds for which the last frame stays.
        metadata: Kept as text chunks in a PNG, as JSON in the comment of a GIF or MP4; the title
            of an MP4 is metadata["title"].

    Raises:
        ValueError: kind, frames or fps are not as above.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1 or shapes[0][2:] != (3,):
        raise ValueError(f"frames must all be of one shape (H, W, 3), got {shapes}")
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    metadata = metadata or {}
    if kind == "png":
        return _png(frames, metadata)
    return (_gif if kind == "gif" else _mp4)(frames, fps, hold, metadata)


def _png(frames: Sequence[np.ndarray], metadata: Mapping[str, str]) -> bytes:
    if len(frames) != 1:
        raise ValueError(f"a png holds one frame, got {len(frames)}: use gif or mp4 for a film")
    info = PngInfo()
    for key, value in metadata.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _gif(
    frames: Sequence[np.ndarray], fps: float, hold: float, metadata: Mapping[str, str]
) -> bytes:
    n = len(frames)
    if all((frame == frame[..., :1]).all() for frame in frames):
        # White first: a ramp from black up is read as a grey picture, and so a film whose frames
        # don't all have the same ramp can't be read by everybody.
        ramp = bytes(255 - i // 3 for i in range(768))
        images = []
        for frame in frames:
            images.append(Image.fromarray(255 - frame[..., 0]).convert("P"))
            images[-1].putpalette(ramp)
    else:
        # One palette for all: a palette for each frame takes 30 times as long and flickers. The
        # last frame is what people look at, so it makes up half of the sample.
        sample = [frames[round(i * (n - 1) / 7)] for i in range(8)] + 8 * [frames[-1]]
        octree = Image.Quantize.FASTOCTREE
        palette = Image.fromarray(np.concatenate(sample)).quantize(256, method=octree)
        dither = Image.Dither.NONE  # noise hides the steps between colours well enough
        images = [Image.fromarray(f).quantize(palette=palette, dither=dither) for f in frames]
    # Times are whole centiseconds; rounding the sums keeps the average rate. Browsers play
    # anything shorter than 2 of them as 10.
    ends = [round(100 * i / min(fps, 50)) for i in range(n + 1)]
    durations = [10 * (end - start) for start, end in pairwise(ends)]
    durations[-1] = max(durations[-1], 10 * round(100 * hold))
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        comment=_json(metadata).encode(),
        optimize=False,  # else each frame gets the palette of what it uses
    )
    return buffer.getvalue()


def _mp4(
    frames: Sequence[np.ndarray], fps: float, hold: float, metadata: Mapping[str, str]
) -> bytes:
    import av  # not needed to start the app, and slow to load

    height, width, _ = frames[0].shape
    # Players want one colour sample for 2 x 2 pixels. An even scale gives each of a small
    # picture's pixels a colour of its own; a larger one must still have even sides.
    side = max(height, width)
    scale = 2 * math.ceil(256 / side) if side < 512 else 1
    even = ((0, height * scale % 2), (0, width * scale % 2), (0, 0))
    comment = _json(metadata)
    # Players start at once if the index (moov) comes first; +faststart would need a real file,
    # so room is reserved for it: below 64 bytes a frame.
    copies = max(1, round(hold * fps))
    room = 4096 + 64 * (len(frames) + copies) + 2 * len(comment)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"moov_size": str(room)}) as container:
        container.metadata["comment"] = comment
        container.metadata["title"] = metadata.get("title", "")
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1000),
            options={"crf": "16", "preset": "veryfast"},
        )
        stream.width, stream.height = width * scale + even[1][1], height * scale + even[0][1]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = 6  # BT.601, as converted; players guess otherwise
        for frame in [*frames, *[frames[-1]] * (copies - 1)]:
            picture = np.pad(_enlarge(frame, scale), even, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _json(metadata: Mapping[str, str]) -> str:
    return json.dumps(dict(metadata)) if metadata else ""


def write(
    path: str | Path,
    frames: Sequence[np.ndarray],
    *,
    fps: float = 15,
    hold: float = 1.5,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Encode frames as the suffix of path says, and write them whole or not at all.

    Raises:
        ValueError: The suffix is not one of KINDS, the folder does not exist, or see `encode`.
        OSError: The file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in KINDS:
        raise ValueError(f"'{path}' must end in one of .{', .'.join(KINDS)}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder '{path.parent}' does not exist")
    data = encode(frames, kind, fps=fps, hold=hold, metadata=metadata)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"'{path}' was not written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
