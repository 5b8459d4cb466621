"""Writes frames as a PNG, GIF or MP4 by imageio, in memory or on the disk.

A *frame* is one uint8 picture (H, W, 3). `_one_palette` and `_film` do what imageio's plugins
can't.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm_demo.config import number, one_of, require
from ddpm_demo.machine.files import write_atomically
from ddpm_demo.media.convert import enlarge

if TYPE_CHECKING:
    from imageio.plugins.pyav import PyAVPlugin

KINDS = ("png", "gif", "mp4")
FILM_FRAMES = 120  # the most frames of a film that the page asks for

_GIF_SIDE = _GIF_TIME = 2**16 - 1  # the most pixels a side, and centiseconds a frame (16 bits)
_MP4_SIDE = 16_384  # the most pixels a side that x264 encodes
_MP4_HELD = 9_000  # the most copies of the last frame: 600 seconds at the usual rate
_PNG_KEY = 79  # the most Latin-1 characters in the name of a text


def encode(
    frames: Sequence[np.ndarray],
    kind: str,
    *,
    fps: float = 15,
    hold: float = 1.5,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Encode one picture or a film as a file, in memory.

    A PNG holds one frame, exactly. A GIF loops and has 256 colours, so only a grey film is exact.
    In a GIF, equal frames in a row become one longer frame. An MP4 (H.264) plays nearly everywhere,
    even in slides; small frames are enlarged.

    Args:
        frames: uint8 (H, W, 3) each, all of one shape.
        kind: One of KINDS.
        fps: Frames a second, from 0.01 to 1,000; a GIF plays at most 50.
        hold: Seconds for which the last frame stays, from 0 to 600.
        metadata: Kept as text chunks in a PNG, or as JSON in the comment of a GIF or MP4. The title
            of an MP4 is metadata["title"].

    Raises:
        ValueError: kind, frames, fps, hold or metadata are not as above, or the format can't hold
            them. A GIF has at most 65,535 pixels a side and 655.35 seconds a frame. An MP4 has at
            most 16,384 pixels a side, and its last frame can stay for the time of 9,000 frames.
    """
    one_of("kind", kind, KINDS)
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1 or shapes[0][2:] != (3,) or 0 in shapes[0]:
        raise ValueError(f"frames must all be of one shape (H, W, 3), got {shapes}")
    require(all(f.dtype == np.uint8 for f in frames), "type of frames", frames[0].dtype, "uint8")
    number("fps", fps, 0.01, 1000)
    number("hold", hold, 0, 600)
    metadata = metadata or {}
    if kind == "png":
        return _png(frames, metadata)
    return (_gif if kind == "gif" else _mp4)(frames, fps, hold, metadata)


def _png(frames: Sequence[np.ndarray], metadata: Mapping[str, str]) -> bytes:
    if len(frames) != 1:
        raise ValueError(f"a png holds one frame, got {len(frames)}: use gif or mp4 for a film")
    info = PngInfo()
    for key, value in metadata.items():
        ok = 0 < len(key) <= _PNG_KEY and key.isprintable() and key == key.strip()
        ok = ok and all(ord(letter) < 256 for letter in key)
        require(ok, "name of a text in a PNG", key, f"1 to {_PNG_KEY} letters of Latin-1")
        require("\0" not in value, f"text {key!r} in a PNG", value, "text without NUL")
        info.add_text(
            key, value.encode(errors="replace").decode()
        )  # names of files can be any bytes
    return _written(frames[0], "png", pnginfo=info)


def _gif(
    frames: Sequence[np.ndarray], fps: float, hold: float, metadata: Mapping[str, str]
) -> bytes:
    sides = frames[0].shape[:2]
    require(max(sides) <= _GIF_SIDE, "size of a GIF", sides, f"at most {_GIF_SIDE:,} pixels a side")
    indices, palette = _one_palette(frames)
    # Times are whole centiseconds. We round the sums, which keeps the average rate. Browsers play
    # frames shorter than 2 centiseconds as 10.
    ends = [round(100 * i / min(fps, 50)) for i in range(len(frames) + 1)]
    times = [end - start for start, end in pairwise(ends)]
    times[-1] = max(times[-1], round(100 * hold))
    changes = np.cumsum([0, *((a != b).any() for a, b in pairwise(indices))])
    for _, equal in groupby(zip(changes, times, strict=True), lambda pair: pair[0]):
        if (shown := sum(time for _, time in equal)) > _GIF_TIME:
            raise ValueError(
                f"a frame of a GIF, and equal ones in a row, last at most {_GIF_TIME / 100} "
                f"seconds, got {shown / 100}"
            )
    duration = [10 * time for time in times]
    return _written(
        indices,
        "gif",
        is_batch=True,
        palette=palette,
        duration=duration if len(duration) > 1 else duration[0],
        loop=0,
        comment=_json(metadata).encode(),
        optimize=False,  # otherwise each frame gets its own palette
    )


def _one_palette(frames: Sequence[np.ndarray]) -> tuple[np.ndarray, bytes]:
    """Turn the frames into indices (N, H, W) into one palette of 256 colours.

    imageio would give each frame its own palette. That takes 30 times as long, and the film
    flickers.
    """
    if all((frame == frame[..., :1]).all() for frame in frames):
        # The ramp starts with white. Readers take a ramp from black up for a grey picture, and some
        # then fail on a film whose frames don't all have the same ramp.
        grey = np.stack([frame[..., 0] for frame in frames])
        return 255 - grey, bytes(255 - i // 3 for i in range(768))
    # People look at the last frame most, so it makes up half of the sample.
    n = len(frames)
    sample = [frames[round(i * (n - 1) / 7)] for i in range(8)] + 8 * [frames[-1]]
    octree = Image.Quantize.FASTOCTREE
    palette = Image.fromarray(np.concatenate(sample)).quantize(256, method=octree)
    dither = Image.Dither.NONE  # the noise in the frames hides the steps between colours
    images = [Image.fromarray(f).quantize(palette=palette, dither=dither) for f in frames]
    indices, colours = np.stack([np.asarray(i) for i in images]), palette.getpalette("RGB") or []
    return _distinct(indices, [tuple(colours[i : i + 3]) for i in range(0, len(colours), 3)])


def _distinct(indices: np.ndarray, colours: list[tuple[int, ...]]) -> tuple[np.ndarray, bytes]:
    """Make all 256 colours of a palette different. Pillow is slow if two are equal."""
    first = {colour: i for i, colour in reversed(list(enumerate(colours)))}
    lookup = np.array([first[colour] for colour in colours], np.uint8)
    free = ((0, g, b) for g in range(256) for b in range(256) if (0, g, b) not in first)
    kept = [colour if first[colour] == i else next(free) for i, colour in enumerate(colours)]
    kept += [next(free) for _ in range(256 - len(kept))]
    return lookup[indices], bytes(value for colour in kept for value in colour)


def _mp4(
    frames: Sequence[np.ndarray], fps: float, hold: float, metadata: Mapping[str, str]
) -> bytes:
    height, width, _ = frames[0].shape
    # Players want one colour sample for 2 x 2 pixels. Small pictures are enlarged by an even scale,
    # so that each pixel keeps its own colour. Larger pictures still need even sides.
    side = max(height, width)
    require(side <= _MP4_SIDE, "size of an MP4", (height, width), f"at most {_MP4_SIDE:,} a side")
    scale = 2 * math.ceil(256 / side) if side < 512 else 1
    even = ((0, height * scale % 2), (0, width * scale % 2), (0, 0))
    comment, copies = _json(metadata), max(1, round(hold * fps))
    require(copies <= _MP4_HELD, "hold of an MP4", hold, f"at most {_MP4_HELD:,} frames' time")
    # Players start at once if the index (moov) comes first. +faststart would need a real file, so
    # we reserve room for the index, which takes less than 64 bytes a frame.
    room = 4096 + 64 * (len(frames) + copies) + 2 * len(comment)
    buffer = io.BytesIO()
    options = {"moov_size": str(room)}
    with iio.imopen(buffer, "w", plugin=_film(), extension=".mp4", options=options) as film:
        film.container_metadata["comment"] = comment
        film.container_metadata["title"] = metadata.get("title", "").partition("\0")[0]
        film.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
        for frame in [*frames, *[frames[-1]] * (copies - 1)]:
            film.write_frame(np.pad(enlarge(frame, scale), even, mode="edge"))
    return buffer.getvalue()


def _film() -> type[PyAVPlugin]:
    """imageio's plugin, with settings that it has no options for: quality, speed, colour matrix."""
    from imageio.plugins.pyav import PyAVPlugin  # slow to load, and not needed to start the app

    class Film(PyAVPlugin):
        def init_video_stream(self, codec: str, **options: Any) -> None:
            super().init_video_stream(codec, **options)
            stream: Any = self._video_stream
            context = stream.codec_context
            context.options = {"crf": "16", "preset": "veryfast"}
            context.colorspace = 6  # BT.601, as the frames are converted; otherwise players guess

    return Film


def _written(pictures: np.ndarray, kind: str, **options: Any) -> bytes:
    return iio.imwrite("<bytes>", pictures, plugin="pillow", extension=f".{kind}", **options)


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
    """Encode frames in the format of the path's suffix, and write them whole or not at all.

    Raises:
        ValueError: The suffix is not one of KINDS, or the folder does not exist; or as for
            `encode`.
        OSError: The file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in KINDS:
        raise ValueError(f"'{path}' must end in one of .{', .'.join(KINDS)}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder '{path.parent}' does not exist")
    write_atomically(path, encode(frames, kind, fps=fps, hold=hold, metadata=metadata))
