"""The trajectory player: shows a run live, then replays it in the browser without the server.

Python sends a short string now and then; the browser (player.js) keeps the pictures and does the
rest. A string is a JSON object with any of these:

    run     the header; it starts afresh
    frames  [{"step", "t", "s", "d"}, ...], s: seconds since the start, d: base64 of the raw
            uint8 [panel][n][h][w][c]
    note    a sentence, shown when no more frames come

It is never a dict, and never holds the frames of earlier messages: Gradio's front end compares and
copies the whole value at each update, and loses changes to dicts in hidden tabs.
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_demo.media import images

Pictures = NDArray[np.uint8]  # (n, h, w, c), c = 1 or 3

PANELS = {"x_t": "Noisy picture xₜ", "x0_hat": "Predicted picture x̂₀"}
"""What the player shows: attributes of Step, and a label for each."""

PROGRESS = {"show_progress": "minimal"}
"""For events that fill a player: so it learns its place in the queue, and when a run is over."""

MESSAGES_PER_SECOND = 7  # each takes some 4 ms from a network that keeps two cores busy
FRAMES_PER_MESSAGE = 8  # at most, of a run that is alone
CHARS_PER_SECOND = 5_000_000  # of base64: what slow machines and networks can follow live
CHARS_PER_RUN = 32_000_000  # what a page holds, and sends back for a film

FILM_FPS = 15
FILM_FRAMES = 120
FILM_WIDTH, PRINT_WIDTH = 512, 1024  # pixels, at least
FILM_PIXELS = 80_000_000  # in all frames together, at most
REQUEST_CHARS = 48_000_000
STRIP_ROWS = 8
PATIENCE = 10.0  # seconds to wait for one of two encoders
MIMES = {"gif": "image/gif", "mp4": "video/mp4", "strip": "image/png", "png": "image/png"}

_here = Path(__file__).parent
_encoders = threading.BoundedSemaphore(2)
_streams: set[object] = set()  # one for each run that is streamed

HTML = """
<div class="ddpm-player" role="group" aria-label="Player" tabindex="0">
  <div data-part="stage"><p data-part="empty"></p></div>
  <div class="ddpm-words"><span data-part="status"></span><span data-part="title"></span></div>
  <div data-part="spoken" role="status"></div>
  <input type="range" data-part="slider" min="0" aria-label="Timeline">
  <div class="ddpm-bar">
    <div>
      <button type="button" data-part="first" aria-label="First frame" title="First frame (Home)">
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 5h3v14H5zM20 5v14L9 12z"/></svg>
      </button>
      <button type="button" data-part="back" aria-label="One frame back" title="Back (←)">
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M15 4l2 2-6 6 6 6-2 2-8-8z"/></svg>
      </button>
      <button type="button" data-part="play" title="Play or pause (space)">
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path class="ddpm-play" d="M7 4l13 8-13 8z"/>
          <path class="ddpm-pause" d="M6 4h4v16H6zM14 4h4v16h-4z"/>
        </svg>
      </button>
      <button type="button" data-part="next" aria-label="One frame forward" title="Forward (→)">
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 4L7 6l6 6-6 6 2 2 8-8z"/></svg>
      </button>
      <button type="button" data-part="last" aria-label="Last frame" title="Last frame (End)">
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M16 5h3v14h-3zM4 5l11 7-11 7z"/></svg>
      </button>
      <select data-part="speed" aria-label="Speed" title="Speed">
        <option value="0.5">0.5×</option>
        <option value="1" selected>1×</option>
        <option value="2">2×</option>
        <option value="4">4×</option>
      </select>
      <button type="button" data-part="live" title="Follow the run as it comes">Live</button>
      <button type="button" data-part="one" title="Show one picture alone">Enlarge</button>
    </div>
    <div role="group" aria-label="Save">
      <span>Save</span>
      <button type="button" data-save="gif" title="The whole run as a GIF film">GIF</button>
      <button type="button" data-save="mp4" title="The whole run as an MP4 film">MP4</button>
      <button type="button" data-save="strip" title="Ten moments side by side">Strip</button>
      <button type="button" data-save="png" title="The pictures shown now">PNG</button>
    </div>
  </div>
</div>
"""


class StepLike(Protocol):
    """What `stream` needs of a `sampling.Step`, besides the tensors that its panels name."""

    @property
    def index(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def t(self) -> int: ...


def Player(
    value: str = "",
    *,
    panels: Iterable[str] = PANELS.values(),
    empty: str = "Press Generate to start.",
    **options: Any,
) -> gr.HTML:
    """The component. Fill it by a handler that yields the strings of `stream`.

    A function, not a subclass: Gradio writes a .pyi file beside the source of each subclass.

    Args:
        value: a string made by this module, or nothing.
        panels: the labels shown before the first run, whose header brings its own.
        empty: the sentence shown before the first run.
        options: of `gr.HTML`: elem_id, visible ...
    """
    return gr.HTML(
        value,
        html_template=HTML,
        js_on_load=(_here / "player.js").read_text(encoding="utf-8"),
        # Not as css_template: that is compiled and set again at each message.
        head=f"<style>{(_here / 'player.css').read_text(encoding='utf-8')}</style>",
        apply_default_css=False,
        server_functions=[export_film],
        labels=list(panels),
        empty=empty,
        **options,
    )


# --- messages to the page -------------------------------------------------------------------------


def header(
    shape: Sequence[int],
    total: int,
    *,
    panels: Iterable[str] = PANELS.values(),
    columns: int | None = None,
    unit: str = "step",
    title: str = "",
    meta: Mapping[str, object] | None = None,
    fps: float = FILM_FPS,
) -> str:
    """The message that starts a run.

    Args:
        shape: (n, h, w, c) of each panel.
        total: the `step` of the last frame.
        panels: a label for each panel.
        columns: pictures in a row; as square as can be if not given.
        unit: the word before the number of a frame.
        title: a line about the run.
        meta: model, sampler, steps, seed ... They name a saved file, and are written into it.
        fps: frames a second, when it is played and in a film; 1 to 30.
    """
    n, h, w, c = shape
    run = {
        "n": n,
        "h": h,
        "w": w,
        "c": c,
        "columns": columns or math.ceil(math.sqrt(n)),
        "panels": list(panels),
        "total": total,
        "unit": unit,
        "title": title,
        "fps": fps,
        "meta": {name: str(value) for name, value in (meta or {}).items()},
    }
    return json.dumps({"run": run})


def frame(step: int, t: int | None, *panels: Pictures, seconds: float = 0.0) -> str:
    """The message that adds one frame: uint8 (n, h, w, c) for each panel."""
    return json.dumps({"frames": [_frame(step, t, panels, seconds)]})


def note(text: str) -> str:
    """The message that no more frames come, and why: for the handler of Stop."""
    return json.dumps({"note": text})


def stream(
    steps: Iterable[StepLike],
    *,
    panels: Mapping[str, str] = PANELS,
    columns: int | None = None,
    fps: float = MESSAGES_PER_SECOND,
    keep: int = 250,
    title: str = "",
    meta: Mapping[str, object] | None = None,
    sparing: bool = False,
) -> Iterator[str | dict[str, Any]]:
    """Pulls every step, and yields a value for the player about `fps` times a second.

    A message costs far more than a frame does. So messages are thinned by time, and each carries
    up to 8 frames: a fast run, too, can be scrubbed step by step. A long run sends about `keep`
    frames, and always the first and the last step; fewer if they are big. If `sparing`, all runs
    that are streamed at the same time share the messages of one: each has fewer, with more frames,
    and the page shows them one after the other.

    Gradio can stop a handler only where it yields, so this yields `gr.skip()` when there is nothing
    new to show: Stop takes effect within one step plus the time between messages. Use as

        def generate(...):
            yield from stream(ddpm(...))

    with the options `PROGRESS`, and never inside `with torch.no_grad()`: each step may be pulled by
    another thread.
    """
    start = time.perf_counter()
    steps = iter(steps)
    step = next(steps, None)
    if step is None:
        return

    def encode(kept: Sequence[tuple[StepLike, float]]) -> list[dict[str, Any]]:
        """All at once: a step waits for its run, and what is quick alone adds up over runs."""
        pictures = [
            np.split(images.to_uint8(torch.cat([getattr(s, name) for s, _ in kept])), len(kept))
            for name in panels
        ]
        return [
            _frame(s.index, s.t, shown, now - start)
            for (s, now), *shown in zip(kept, *pictures, strict=True)
        ]

    kept = [(step, time.perf_counter())]
    (first,) = encode(kept)
    n, c, h, w = getattr(step, next(iter(panels))).shape
    labels = panels.values()
    shape = (n, h, w, c)
    opening = header(shape, step.total, panels=labels, columns=columns, title=title, meta=meta)
    yield json.dumps({**json.loads(opening), "frames": [first]})

    size = len(first["d"])
    stride = step.total / max(2, min(keep, CHARS_PER_RUN // size))
    gap = max(1 / fps / FRAMES_PER_MESSAGE, size / CHARS_PER_SECOND)
    last, kept_at = step, time.perf_counter()
    sent_at, kept = kept_at, []
    this = object()
    _streams.add(this)
    try:
        for step in steps:
            now = time.perf_counter()
            every = (len(_streams) if sparing else 1) / fps
            if step.index - last.index >= stride and now - kept_at >= gap:
                kept.append((step, now))
                last, kept_at = step, now
            if now - sent_at >= every:
                yield json.dumps({"frames": encode(kept)}) if kept else gr.skip()
                kept, sent_at = [], time.perf_counter()
    finally:
        _streams.remove(this)
    if last is not step:
        kept.append((step, now))
    if kept:
        yield json.dumps({"frames": encode(kept)})


def _frame(step: int, t: int | None, panels: Iterable[Pictures], seconds: float) -> dict[str, Any]:
    raw = b"".join(np.ascontiguousarray(panel).tobytes() for panel in panels)
    return {"step": step, "t": t, "s": round(seconds, 2), "d": base64.b64encode(raw).decode()}


# --- files ----------------------------------------------------------------------------------------


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
        kind, run, frames, pictures = _decode(request)
        data = _encode(kind, run, frames, pictures)
    except ValueError as problem:
        return {"error": f"Could not make the file: {problem}"}
    finally:
        _encoders.release()
    name = file_name(kind, run["meta"])
    return {"name": name, "mime": MIMES[kind], "data": base64.b64encode(data).decode()}


def file_name(kind: str, meta: Mapping[str, object]) -> str:
    """Such as ddpm-mnist-ddim-50-seed0.gif."""
    words = ["ddpm", *(str(meta[name]) for name in ("model", "sampler", "steps") if name in meta)]
    if "seed" in meta:
        words.append(f"seed{meta['seed']}")
    stem = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:100]
    return stem + {"strip": "-strip.png"}.get(kind, f".{kind}")


def _decode(request: Any) -> tuple[str, dict[str, Any], list[dict[str, Any]], Pictures]:
    """Checks a request for a file; the pictures are (frames, panels, n, h, w, c).

    Raises:
        ValueError: says what is wrong.
    """
    _expect(isinstance(request, dict), "the request is not an object.")
    kind, run, frames, one = (request.get(key) for key in ("kind", "run", "frames", "one"))
    _expect(isinstance(kind, str) and kind in MIMES, f"kind is not one of {', '.join(MIMES)}.")
    _expect(isinstance(run, dict), "run is not an object.")
    sizes = {"n": 256, "h": 1024, "w": 1024, "c": 3, "columns": 256}
    for name, most in sizes.items():
        _expect(_whole(run.get(name), 1, most), f"{name} is not a whole number from 1 to {most}.")
    _expect(run["c"] != 2, "c is not 1 or 3.")
    fps = run.get("fps", FILM_FPS)
    _expect(type(fps) in (int, float) and 1 <= fps <= 30, "fps is not a number from 1 to 30.")
    panels, meta = run.get("panels"), run.get("meta")
    _expect(isinstance(panels, list) and 1 <= len(panels) <= 4, "there are not 1 to 4 panels.")
    _expect(
        isinstance(meta, dict)
        and len(meta) <= 32
        and all(isinstance(v, str) and len(k) < 80 and len(v) < 300 for k, v in meta.items()),
        "meta is not at most 32 short strings.",
    )
    _expect(one is None or _whole(one, 0, run["n"] - 1), "one is not the number of a picture.")

    shape = (len(panels), run["n"], run["h"], run["w"], run["c"])
    chars = 4 * math.ceil(math.prod(shape) / 3)
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
    raw = b"".join(base64.b64decode(item["d"]) for item in frames)
    _expect(len(raw) == count * math.prod(shape), "a frame is malformed.")
    pictures = np.frombuffer(raw, np.uint8).reshape(count, *shape)
    if one is not None:
        pictures = pictures[:, :, one : one + 1]
    return kind, run, frames, pictures


def _encode(
    kind: str, run: dict[str, Any], frames: list[dict[str, Any]], pictures: Pictures
) -> bytes:
    metadata = {**run["meta"], "program": "ddpm_demo"}
    if kind == "strip":
        rows = max(1, STRIP_ROWS // pictures.shape[1])
        shots = [_sheet(panels[:, :rows], 1, stacked=True) for panels in pictures]
        labels = [str(f["step"]) if f["t"] is None else f"t = {f['t']}" for f in frames]
        width = len(shots) * shots[0].shape[1]
        strip = images.strip(shots, labels, _scale(shots, PRINT_WIDTH / width))
        return images.encode([strip], "png", metadata=metadata)
    if kind == "png":
        pictures = pictures[-1:]
    sheets = [_sheet(panels, min(run["columns"], pictures.shape[2])) for panels in pictures]
    wanted = (PRINT_WIDTH if kind == "png" else FILM_WIDTH) / sheets[0].shape[1]
    # An MP4 has one colour for 2 x 2 pixels, so only an even scale keeps all of them.
    scale = _scale(sheets, wanted, multiple=2 if kind == "mp4" else 1)
    sheets = [images.grid(sheet[None], scale=scale) for sheet in sheets]
    return images.encode(sheets, kind, fps=run.get("fps", FILM_FPS), metadata=metadata)


def _sheet(panels: Pictures, columns: int, *, stacked: bool = False) -> Pictures:
    """(panels, n, h, w, c) -> (H, W, 3): a grid for each panel, side by side or stacked."""
    grids = [images.grid(panel, columns) for panel in panels]
    return images.grid(np.stack(grids), 1 if stacked else len(grids), pad=4)


def _scale(sheets: Sequence[Pictures], wanted: float, multiple: int = 1) -> int:
    """The next multiple from `wanted` on, but 1 if that would make the film too big."""
    scale = multiple * math.ceil(wanted / multiple)
    return scale if scale**2 * sum(s[..., 0].size for s in sheets) <= FILM_PIXELS else 1


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
