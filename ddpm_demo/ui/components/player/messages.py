"""What Python sends to the player in the page: short JSON strings.

The browser keeps the pictures. A string holds an object with some of these:

    run     the header; it starts afresh
    frames  [{"step", "t", "s", "d"}, ...], s: seconds since the start, d: base64 of the raw
            uint8 [pane][n][h][w][c]
    z       [[step, d], ...]: the noise that was added in the step that begins at that frame. It
            comes after the step; d is as above, for one pane
    note    a sentence, shown when no more frames come
    at      besides a note: a run is about to begin, and frames are still to come

A value is never a dict, because Gradio loses changes to dicts in hidden tabs. It never holds the
frames of earlier messages, because Gradio compares and copies the whole value at each update.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from ddpm_demo.media import convert
from ddpm_demo.media.web_page import StepLike

Pictures = NDArray[np.uint8]  # (n, h, w, c), c = 1 or 3

PANES = {
    "x_t": "Current picture xₜ",
    "x0_hat": "Predicted picture x̂₀",
    "eps_hat": "Predicted noise ε̂",
    "z": "Fresh noise σ z",
}
"""What the player can show: attributes of `Step`, and a label for each; z is a term of its line."""

SCALES = {"eps_hat": 1 / 3}
"""Panes are seen from -1 to 1, but ε̂, of unit variance, from -3 to 3."""

STEP_PANELS = {name: PANES[name] for name in ("x_t", "x0_hat", "eps_hat")}
"""All that a run with `updates` shows, besides z."""

PANELS = {name: PANES[name] for name in ("x_t", "x0_hat")}
"""What it shows if nothing else is asked for."""

FPS = 15  # frames a second of a run that is played
MESSAGES_PER_SECOND = 7  # each takes some 4 ms from a network that keeps two cores busy
FRAMES_PER_MESSAGE = 8  # at most, of a run that is alone and has more steps than
FEW = 50
CHARS_PER_SECOND = 5_000_000  # of base64: what slow machines and networks can follow live
CHARS_PER_RUN = 32_000_000  # what a page holds, and sends back for a film

_streams: set[object] = set()  # one for each run that is streamed


class Look(TypedDict, total=False):
    """How a run is shown.

    Attributes:
        columns: pictures in a row. By default, the grid is nearly square.
        unit: the word before the number of a frame.
        title: a line about the run.
        meta: model, sampler, steps, seed ... They name a saved file, and are written into it.
        updates: what each step computes (see `inference.updates`), to show it beside the pictures.
        id: the name by which the server keeps the run (see `ui.server.runs`).
        changed: what was changed in it, in words.
        since: "id" and "step" of the run from which it goes on. It takes over the frames so far.
    """

    columns: int | None
    unit: str
    title: str
    meta: Mapping[str, object] | None
    updates: Mapping[str, Any] | None
    id: str
    changed: str
    since: Mapping[str, Any] | None


def header(
    shape: Sequence[int],
    total: int,
    *,
    panels: Mapping[str, str] | Iterable[str] = PANELS,
    fps: float = FPS,
    **look: Unpack[Look],
) -> str:
    """The message that starts a run.

    Args:
        shape: (n, h, w, c) of each pane.
        total: the `step` of the last frame.
        panels: a label for each pane. A mapping names the panes, too, as `PANES` does.
        fps: frames a second, when it is played and in a film; 1 to 30.
        look: see `Look`.
    """
    n, h, w, c = shape
    named = isinstance(panels, Mapping)
    labels = list(panels.values()) if isinstance(panels, Mapping) else list(panels)
    run = {
        "n": n,
        "h": h,
        "w": w,
        "c": c,
        "columns": look.get("columns") or math.ceil(math.sqrt(n)),
        "panels": labels,
        "panes": list(panels) if named else labels,
        "total": total,
        "unit": look.get("unit", "step"),
        "title": look.get("title", ""),
        "fps": fps,
        "meta": {name: str(value) for name, value in (look.get("meta") or {}).items()},
    }
    run |= {key: look[key] for key in ("id", "changed", "since") if look.get(key)}
    if updates := look.get("updates"):
        noisy = any(name == "z" for line in updates["lines"] for name, _ in line)
        run["updates"] = {**updates, "z": PANES["z"] if noisy else None}
    return json.dumps({"run": run})


def frame(step: int, t: int | None, *panels: Pictures, seconds: float = 0.0) -> str:
    """The message that adds one frame: uint8 (n, h, w, c) for each pane."""
    return json.dumps({"frames": [_frame(step, t, panels, seconds)]})


def note(text: str) -> str:
    """The message that no more frames come, and why. Stop's handler sends it."""
    return json.dumps({"note": text})


def paused(text: str) -> str:
    """As `note`, but only for a run that is on."""
    return json.dumps({"note": text, "live": True})


def starting(text: str) -> str:
    """The message that a run has not begun yet, and why."""
    return json.dumps({"note": text, "at": 0})


def stream(
    steps: Iterable[StepLike],
    *,
    panels: Mapping[str, str] = PANELS,
    fps: float = MESSAGES_PER_SECOND,
    keep: int = 250,
    sparing: bool = False,
    **look: Unpack[Look],
) -> Iterator[str | dict[str, Any]]:
    """Take every step, and yield a value for the player several times a second.

    A message costs far more than a frame does. So messages are thinned by time, and each carries
    up to 8 frames: a fast run, too, can be scrubbed step by step. A long run sends about `keep`
    frames, and always the first and the last step; fewer if they are big. If `sparing`, all runs
    that are streamed at the same time share the messages of one: each has fewer, with more frames,
    and the page shows them one after the other.

    Gradio can stop a handler only where it yields, so this yields `gr.skip()` when there is nothing
    new to show: Stop takes effect within one step plus the time between messages. Use as

        def generate(...):
            yield from stream(ddpm(...))

    with the options `progress`, and never inside `with torch.no_grad()`: each step may be pulled by
    another thread.

    Args:
        panels: attributes of the steps, and a label for each.
        look: see `Look`. It doesn't set the frame rate of a film.
    """
    steps = iter(steps)
    sender = _Sender(list(panels), fps, keep, sparing, z=bool(look.get("updates")))
    step = next(steps, None)
    if step is None:
        return
    n, c, h, w = getattr(step, next(iter(panels))).shape
    opening = header((n, h, w, c), step.total, panels=panels, **look)
    yield json.dumps({**json.loads(opening), "frames": [sender.begin(step)]})
    _streams.add(sender)
    try:
        for step in steps:
            message = sender.take(step)
            if message is not None:
                yield message
    finally:
        _streams.remove(sender)
    rest = sender.end(step)
    if rest:
        yield rest


class _Sender:
    """Chooses the steps of a run that are sent, and when."""

    def __init__(
        self, panes: Sequence[str], fps: float, keep: int, sparing: bool, *, z: bool = False
    ) -> None:
        self._start = time.perf_counter()
        self._shows_z = z
        self._z: list[tuple[int, Any]] = []  # that were added since the last message
        self._panes, self._fps, self._keep, self._sparing = panes, fps, keep, sparing
        self._kept: list[tuple[StepLike, float]] = []  # and when they came
        self._last: StepLike | None = None  # of those that were kept
        self._kept_at = self._sent_at = self._stride = self._gap = 0.0

    def begin(self, step: StepLike) -> dict[str, Any]:
        """Send the first frame. Its size says how many can follow."""
        self._kept = [(step, time.perf_counter())]
        (first,) = self._encoded()
        size = len(first["d"])
        self._stride = step.total / max(2, min(self._keep, CHARS_PER_RUN // size))
        self._gap = max(1 / self._fps / FRAMES_PER_MESSAGE, size / CHARS_PER_SECOND)
        if step.total <= FEW and size * step.total <= CHARS_PER_SECOND:
            self._gap = 0.0  # all of a short run is seen, however quick it is
        self._last, self._kept_at = step, time.perf_counter()
        self._sent_at = self._kept_at
        return first

    def take(self, step: StepLike) -> str | dict[str, Any] | None:
        """Add a step. Returns a message if it is time for one."""
        assert self._last
        if self._shows_z and step.index == self._last.index + 1:
            added = (term for term in getattr(step, "line", ()) if term.name == "z")
            self._z += [(self._last.index, term.coefficient * term.tensor) for term in added]
        now = time.perf_counter()
        due = step.index - self._last.index >= self._stride
        if due and now - self._kept_at >= self._gap:
            self._kept.append((step, now))
            self._last, self._kept_at = step, now
        if now - self._sent_at < (len(_streams) if self._sparing else 1) / self._fps:
            return None
        message = self._message() if self._kept or self._z else gr.skip()
        self._sent_at = time.perf_counter()
        return message

    def end(self, step: StepLike) -> str | None:
        """The last message: what was kept, and the last step."""
        if step is not self._last:
            self._kept.append((step, time.perf_counter()))
        return self._message() if self._kept or self._z else None

    def _message(self) -> str:
        message: dict[str, Any] = {"frames": self._encoded()}
        if self._z:
            message["z"] = [(index, _text([convert.to_uint8(z)])) for index, z in self._z]
            self._z = []
        return json.dumps(message)

    def _encoded(self) -> list[dict[str, Any]]:
        """Encode all frames at once: many small pieces of work add up over the runs."""
        import torch  # the steps have brought it

        kept, self._kept = self._kept, []
        if not kept:
            return []
        pictures = []
        for name in self._panes:
            shown = torch.cat([getattr(s, name) for s, _ in kept]) * SCALES.get(name, 1)
            pictures.append(np.split(convert.to_uint8(shown), len(kept)))
        return [
            _frame(s.index, s.t, shown, came - self._start)
            for (s, came), *shown in zip(kept, *pictures, strict=True)
        ]


def _frame(step: int, t: int | None, panels: Iterable[Pictures], seconds: float) -> dict[str, Any]:
    return {"step": step, "t": t, "s": round(seconds, 2), "d": _text(panels)}


def _text(panels: Iterable[Pictures]) -> str:
    raw = b"".join(np.ascontiguousarray(panel).tobytes() for panel in panels)
    return base64.b64encode(raw).decode()
