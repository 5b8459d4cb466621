"""Makes films, strips and pictures from the frames of a run, which the page sends back."""

from __future__ import annotations

import base64
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpm_demo.media import convert, encode
from ddpm_demo.ui.components.player.messages import FPS, Pictures

FILM_FRAMES = 120  # at most; the page thins longer runs
FILM_MOVES = 2.5  # seconds, at least; with the hold of the last frame a film lasts 4 s
FILM_WIDTH, PRINT_WIDTH = 512, 1024  # pixels, at least
FILM_PIXELS = 80_000_000  # in all frames together, at most
REQUEST_CHARS = 48_000_000
STRIP_ROWS = 8
SYMBOLS = {
    "xₜ": "x_t",
    "x̂₀": "x0_hat",
    "ε̂": "eps_hat",
    "σ": "sigma",
}  # which the font of films lacks
META = {"with": 2000, "pictures": 2_000_000}  # characters of a value, at most; 300 of the others
PATIENCE = 10.0  # the most seconds to wait for one of the two encoders
MIMES = {"gif": "image/gif", "mp4": "video/mp4", "strip": "image/png", "png": "image/png"}

_encoders = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class Request:
    """What the page asks for, after the checks.

    Attributes:
        kind: one of `MIMES`.
        run: the header.
        frames: as the page sent them, without their pictures.
        pictures: (frames, panes, n, h, w, c).
        one: the number of the picture, if only one is wanted.
    """

    kind: str
    run: dict[str, Any]
    frames: list[dict[str, Any]]
    pictures: Pictures
    one: int | None

    @property
    def about(self) -> dict[str, str]:
        """The file's metadata: the run and, for a single moment, which one it is."""
        about = {**self.run["meta"], "program": "ddpm_demo"}
        if self.one is not None:
            about["picture"] = str(self.one + 1)
        if self.kind == "png":
            about["step"] = str(self.frames[-1]["step"])
            if self.frames[-1]["t"] is not None:
                about["t"] = str(self.frames[-1]["t"])
        return about


def export_film(request: Any) -> dict[str, str]:
    """Makes a file of frames that the page sends back, so that the server need not keep them.

    Reachable by anyone who can reach the page, outside Gradio's queue: trusts nothing, runs at most
    twice at once, works in memory only.

    Args:
        request: {"kind": one of MIMES, "run": the header, "frames": frames as they were sent,
            "one": the number of the only picture wanted, or None}.

    Returns:
        {"name", "mime", "data": base64}, or {"error": a sentence}.
    """
    if not _encoders.acquire(timeout=PATIENCE):
        return {"error": "The server is busy making other films. Try again in a moment."}
    try:
        asked = _checked(request)
        data = _encode(asked)
    except ValueError as problem:
        return {"error": f"Could not make the file: {problem}"}
    finally:
        _encoders.release()
    name = file_name(asked.kind, asked.about)
    return {"name": name, "mime": MIMES[asked.kind], "data": base64.b64encode(data).decode()}


def file_name(kind: str, about: Mapping[str, object]) -> str:
    """Such as ddpm-cifar10-ship-w1-5-ddim-50-seed0.gif, or …-t500-picture3.png.

    Args:
        about: of the run: model, class, guidance, sampler, steps, seed, t, picture, and what was
            changed. Missing parts are left out, and so is guidance without a class.
    """
    drawn = str(about.get("class", "")).replace("None", "any")
    words = ["ddpm", str(about.get("model", "")), drawn]
    if drawn and drawn != "any" and "guidance" in about:
        words.append(f"w{float(str(about['guidance'])):g}")
    words += [str(about[name]) for name in ("sampler", "steps") if name in about]
    words += [f"{name}{about[name]}" for name in ("seed", "t", "picture") if name in about]
    if changes := str(about.get("with", "")):
        words += ["changed", *(change[:24] for change in changes.split(";"))]
    stem = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:100]
    return stem + {"strip": "-strip.png"}.get(kind, f".{kind}")


# --- checks ---------------------------------------------------------------------------------------


def _checked(request: Any) -> Request:
    """The request, or a sentence that says what is wrong with it.

    Raises:
        ValueError: it is malformed or too large.
    """
    _expect(isinstance(request, dict), "the request is not an object.")
    kind, run, frames, one = (request.get(key) for key in ("kind", "run", "frames", "one"))
    _expect(isinstance(kind, str) and kind in MIMES, f"kind is not one of {', '.join(MIMES)}.")
    _check_run(run)
    _expect(one is None or _whole(one, 0, run["n"] - 1), "one is not the number of a picture.")
    shape = (len(run["panels"]), run["n"], run["h"], run["w"], run["c"])
    _check_frames(frames, math.prod(shape))
    raw = b"".join(base64.b64decode(item["d"]) for item in frames)
    _expect(len(raw) == len(frames) * math.prod(shape), "a frame is malformed.")
    pictures = np.frombuffer(raw, np.uint8).reshape(len(frames), *shape)
    if one is not None:
        pictures = pictures[:, :, one : one + 1]
    moments = [{"step": item["step"], "t": item.get("t")} for item in frames]
    return Request(kind, run, moments, pictures, one)


def _check_run(run: Any) -> None:
    _expect(isinstance(run, dict), "run is not an object.")
    sizes = {"n": 256, "h": 1024, "w": 1024, "c": 3, "columns": 256}
    for name, most in sizes.items():
        _expect(_whole(run.get(name), 1, most), f"{name} is not a whole number from 1 to {most}.")
    _expect(run["c"] != 2, "c is not 1 or 3.")
    fps = run.get("fps", FPS)
    _expect(type(fps) in (int, float) and 1 <= fps <= 30, "fps is not a number from 1 to 30.")
    panels, meta = run.get("panels"), run.get("meta")
    _expect(
        isinstance(panels, list)
        and 1 <= len(panels) <= 4
        and all(isinstance(label, str) and len(label) < 80 for label in panels),
        "there are not 1 to 4 panels with short labels.",
    )
    _expect(
        isinstance(meta, dict)
        and len(meta) <= 32
        and all(
            isinstance(v, str) and len(k) < 80 and len(v) < META.get(k, 300)
            for k, v in meta.items()
        ),
        "meta is not at most 32 short strings.",
    )


def _check_frames(frames: Any, size: int) -> None:
    """Frames of `size` bytes each."""
    chars = 4 * math.ceil(size / 3)
    count = len(frames) if isinstance(frames, list) else 0
    _expect(1 <= count <= FILM_FRAMES, f"there are not 1 to {FILM_FRAMES} frames.")
    _expect(count * chars <= REQUEST_CHARS, "the frames are too large.")
    for item in frames:
        _expect(
            isinstance(item, dict)
            and _whole(item.get("step"), 0, 10**9)
            and (item.get("t") is None or _whole(item["t"], 0, 10**9))
            and isinstance(item.get("d"), str)
            and len(item["d"]) == chars,
            "a frame is malformed.",
        )


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


# --- pictures -------------------------------------------------------------------------------------


def _encode(asked: Request) -> bytes:
    """The file."""
    if asked.kind == "strip":
        return _strip(asked)
    pictures, frames = asked.pictures, asked.frames
    if asked.kind == "png":
        pictures, frames = pictures[-1:], frames[-1:]
    columns = min(asked.run["columns"], pictures.shape[2])
    sheets = [_sheet(panes, columns) for panes in pictures]
    wanted = (PRINT_WIDTH if asked.kind == "png" else FILM_WIDTH) / sheets[0].shape[1]
    # An MP4 has one colour for 2 x 2 pixels, so only an even scale keeps all of them.
    scale = _scale(sheets, wanted, multiple=2 if asked.kind == "mp4" else 1)
    sheets = [convert.grid(sheet[None], scale=scale) for sheet in sheets]
    if asked.kind == "png":
        return encode.encode(sheets, "png", metadata=asked.about)
    labels = [plain(label) for label in asked.run["panels"]]
    shown = [
        captioned(sheet, moment_words(frame, asked.run.get("unit", "step")), labels)
        for sheet, frame in zip(sheets, frames, strict=True)
    ]
    fps = min(asked.run.get("fps", FPS), max(1, len(shown) - 1) / FILM_MOVES)
    return encode.encode(shown, asked.kind, fps=fps, metadata=asked.about)


def _strip(asked: Request) -> bytes:
    rows = max(1, STRIP_ROWS // asked.pictures.shape[1])
    shots = [_sheet(panes[:, :rows], 1, stacked=True) for panes in asked.pictures]
    labels = [moment_words(frame, "") for frame in asked.frames]
    width = len(shots) * shots[0].shape[1]
    strip = convert.strip(shots, labels, _scale(shots, PRINT_WIDTH / width))
    return encode.encode([strip], "png", metadata=asked.about)


def moment_words(frame: Mapping[str, Any], unit: Any) -> str:
    """Such as "t = 500", or "step 40" where a run has no t."""
    if frame["t"] is not None:
        return f"t = {frame['t']}"
    return f"{unit} {frame['step']}".strip()


def plain(label: str) -> str:
    """A pane's label in the letters that the font has: "x0_hat" for x̂₀."""
    for seen, written in SYMBOLS.items():
        label = label.replace(seen, written)
    return label


def captioned(sheet: Pictures, moment: str, labels: Sequence[str]) -> Pictures:
    """Add a line above a sheet: the moment, and the name of each pane.

    Args:
        sheet: uint8 (H, W, 3).

    Returns:
        uint8 (H + line, W, 3); the line has an even height.
    """
    width = sheet.shape[1]
    size = max(12, min(28, width // 32))
    font = ImageFont.load_default(size)
    line = 2 * math.ceil(0.75 * size)
    page = Image.new("RGB", (width, sheet.shape[0] + 2 * line), "white")
    draw = ImageDraw.Draw(page)
    draw.text((width / 2, line / 2), moment, fill="black", font=font, anchor="mm")
    for k, label in enumerate(labels):
        middle = (k + 0.5) * width / len(labels)
        draw.text((middle, 1.5 * line), label, fill="black", font=font, anchor="mm")
    page.paste(Image.fromarray(sheet), (0, 2 * line))
    return np.array(page)


def _sheet(panes: Pictures, columns: int, *, stacked: bool = False) -> Pictures:
    """(panes, n, h, w, c) -> (H, W, 3): a grid for each pane, side by side or stacked."""
    grids = [convert.grid(pane, columns) for pane in panes]
    return convert.grid(np.stack(grids), 1 if stacked else len(grids), pad=4)


def _scale(sheets: Sequence[Pictures], wanted: float, multiple: int = 1) -> int:
    """The next multiple from `wanted` on; 1 if that would make the film too big."""
    scale = multiple * math.ceil(wanted / multiple)
    return scale if scale**2 * sum(s[..., 0].size for s in sheets) <= FILM_PIXELS else 1
