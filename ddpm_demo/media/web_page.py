"""Writes a run as one HTML file that opens from disk: the page's player, with the run inside.

The file holds x0_hat and eps_hat of each step. Its scripts compute x_t and the fresh noise.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class StepLike(Protocol):
    """The numbers of a step that a film shows."""

    @property
    def index(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def t(self) -> int: ...


class Shown(StepLike, Protocol):
    """The pictures of a step that the file also needs."""

    @property
    def x_t(self) -> Tensor: ...
    @property
    def x0_hat(self) -> Tensor: ...
    @property
    def eps_hat(self) -> Tensor: ...


# The files of the page's player.
PLAYER = Path(__file__).resolve().parents[1] / "ui" / "components" / "player"
SCRIPTS = (
    *("words.js", "recording.js", "pictures.js", "files.js", "gradio.js", "hand.js"),
    *("opening.js", "maths.js", "curve.js", "step.js", "probe.js", "brush.js", "tree.js"),
    *("branches.js", "link.js", "take_home.js", "present.js", "../compare/compare.js", "player.js"),
)
STYLES = ("player.css", "step.css", "present.css", "../compare/compare.css")
EPS_RANGE = 3  # eps_hat is shown from -3 to 3
MOST_CHARS = 8_000_000  # the most characters of base64 in a file; a longer run keeps fewer frames
PANES = {
    "x_t": "Current picture xₜ",
    "x0_hat": "Predicted picture x̂₀",
    "eps_hat": "Predicted noise ε̂",
    "z": "Fresh noise σ z",
}
"""The pictures that the player can show, with their labels."""
COLOURS = {
    "primary-400": "#2dd4bf",
    "primary-600": "#0d9488",
    "primary-700": "#0f766e",
    "neutral-300": "#cbd5e1",
    "neutral-400": "#94a3b8",
    "neutral-700": "#334155",
    "radius-md": "6px",
    "radius-lg": "8px",
    "text-md": "16px",
    "text-lg": "18px",
    "button-primary-text-color": "#fff",
    "button-primary-background-fill": "#0f766e",
}
LIGHT = {
    "body-text-color": "#1e293b",
    "body-text-color-subdued": "#475569",
    "background-fill-primary": "#fff",
    "background-fill-secondary": "#f1f5f9",
    "border-color-primary": "#cbd5e1",
}
DARK = {
    "body-text-color": "#f1f5f9",
    "body-text-color-subdued": "#94a3b8",
    "background-fill-primary": "#0f172a",
    "background-fill-secondary": "#1e293b",
    "border-color-primary": "#475569",
}
STYLE = """
body { margin: 0 auto; max-width: 1100px; padding: 1rem; font-family: system-ui, sans-serif;
  color: var(--body-text-color); background: var(--background-fill-primary); }
h1 { font-size: 1.3rem; margin: 0 0 1rem; }
dl { columns: 12rem; font-size: 0.9rem; margin: 1.5rem 0 1rem; }
dt { float: left; margin-right: 0.5rem; color: var(--body-text-color-subdued); }
dd { margin: 0 0 0.3rem; overflow-wrap: anywhere; }
footer { font-size: 0.9rem; color: var(--body-text-color-subdued); }
.ddpm-player [role=group][aria-label=Save], .ddpm-player [data-part=link],
.ddpm-player [data-part=live] { display: none !important; }
"""
SAID = (
    "Made by ddpm_demo. This file needs no server and no network. It holds the network’s guesses "
    "x̂₀ and ε̂; xₜ and the fresh noise are computed from them, to within a level or two of 256."
)


def joined(folder: Path = PLAYER, names: Sequence[str] = SCRIPTS) -> str:
    """Join modules into one script. `names` must list each module after those that it imports."""
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def shell() -> str:
    """The HTML file without a run. The run replaces /*RUN*/."""
    css = "\n".join((PLAYER / name).read_text(encoding="utf-8") for name in STYLES)
    player = (PLAYER / "player.html").read_text(encoding="utf-8")
    light, dark = _variables(COLOURS | LIGHT), _variables(DARK)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A run</title>
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{STYLE}
{css}
</style>
<script>
if (matchMedia("(prefers-color-scheme: dark)").matches) {{
  document.documentElement.classList.add("dark");
}}
</script>
</head>
<body>
<h1></h1>
<main class="block">{player}</main>
<dl></dl>
<footer>{html.escape(SAID)}</footer>
<script type="application/json" id="run">/*RUN*/</script>
<script>
(() => {{
{joined()}
openFile(startPlayer);
}})();
</script>
</body>
</html>
"""


def run_page(steps: Iterable[Shown], look: Mapping[str, Any], code: tuple[str, str]) -> str:
    """The HTML file of a run.

    Args:
        steps: all steps, from the first to the last.
        look: title, meta and updates, in the player's format.
        code: the sampler's source code, and its file.
    """
    from ddpm_demo.media.convert import to_uint8

    start, step = time.perf_counter(), None
    frames: list[dict[str, Any]] = []
    for step in steps:
        shown = [to_uint8(step.x0_hat), to_uint8(step.eps_hat / EPS_RANGE)]
        took = round(time.perf_counter() - start, 2)
        if frames and frames[-1]["step"] == step.index:  # the run repeated this step
            frames.pop()
        frames.append({"step": step.index, "t": step.t, "s": took, "d": _text(*shown)})
    if step is None:
        raise ValueError("a web page needs a run of at least one step.")
    most = max(2, MOST_CHARS // len(frames[0]["d"]))
    if len(frames) > most:
        frames = [frames[round(i * (len(frames) - 1) / (most - 1))] for i in range(most)]
    n, c, h, w = step.x_t.shape
    shape = {"n": n, "h": h, "w": w, "c": c, "columns": math.ceil(math.sqrt(n))}
    noisy = any(name == "z" for line in look["updates"]["lines"] for name, _ in line)
    panes = ["x_t", "x0_hat", "eps_hat"]
    run: dict[str, Any] = {**shape, "panes": panes, "total": step.total, "unit": "step"}
    run |= {"panels": [PANES[name] for name in panes], "fps": 15, **look}
    run["updates"] = {**look["updates"], "z": PANES["z"] if noisy else None}
    said = {"text": code[0], "file": code[1]}
    data = {"run": run, "frames": frames, "last": _text(to_uint8(step.x_t)), "code": said}
    return shell().replace("/*RUN*/", json.dumps(data).replace("<", "\\u003c"), 1)


def _text(*pictures: np.ndarray) -> str:
    return base64.b64encode(b"".join(p.tobytes() for p in pictures)).decode()


def _variables(values: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in values.items())
