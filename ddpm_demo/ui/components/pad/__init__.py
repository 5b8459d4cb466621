"""A drawing pad: a picture to begin a run with, drawn, opened, or taken from another tab.

The page keeps the picture and sends it when a run begins, so it costs no file and no message.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ddpm_demo.config import require

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
SOURCE = "document.getElementById({!r})?.source?.() ?? ''"
CHARS = 4_000_000  # of a picture as the page sends it, at most
COLOURS = {
    "White": "#ffffff",
    "Black": "#000000",
    "Grey": "#808080",
    "Red": "#d62728",
    "Orange": "#ff9d3b",
    "Yellow": "#ffe066",
    "Green": "#2f8f3a",
    "Blue": "#2f6fd6",
    "Sky": "#9fd3f5",
    "Brown": "#7a4b2a",
}
BUTTON = (
    '<button type="button" class="colour" data-colour="{}" title="{}" aria-label="{}" '
    'style="background: {}" aria-pressed="false"></button>'
)
TEMPLATE = f"""<div class="ddpm-pad">
  <canvas width="256" height="256" tabindex="0" role="img"
    aria-label="Drawing pad. The arrow keys move the brush; the space bar draws."></canvas>
  <div class="tools">
    <div role="group" aria-label="Colour">{
    "".join(BUTTON.format(value, name, name, value) for name, value in COLOURS.items())
}</div>
    <label>Brush
      <input type="range" min="4" max="80" value="24" aria-label="Width of the brush"></label>
    <div><button type="button" class="fill">Fill</button>
      <button type="button" class="clear">Clear</button>
      <button type="button" class="open">Picture…</button></div>
    <input type="file" accept="image/*" hidden>
    <label class="row"><span>Noise it to <i>t</i> =</span>
      <input type="text" class="t" value="800, 600, 400, 200" maxlength="80"
        aria-label="Timesteps to begin at"></label>
  </div>
</div>"""


def build_pad(elem_id: str) -> gr.HTML:
    """The pad; `SOURCE.format(elem_id)` is the script for what `drawn` reads."""
    return gr.HTML(
        html_template=TEMPLATE,
        css_template=(HERE / "pad.css").read_text(encoding="utf-8"),
        js_on_load=(HERE / "pad.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def drawn(source: Any) -> tuple[Image.Image, str]:
    """The picture on the pad and the list of t below it.

    Raises:
        ValueError: it is not from the page, or no picture.
    """
    from ddpm_demo.media.open import open_image

    try:
        said = json.loads(source)
        uri, t = said["picture"], said["t"]
        require(isinstance(uri, str) and isinstance(t, str), "picture", "…", "what the page sends")
    except (TypeError, ValueError, KeyError):
        raise ValueError("There is no picture yet: draw one, or open one.") from None
    require(len(uri) <= CHARS, "picture", f"{len(uri):,} characters", f"up to {CHARS:,}")
    try:
        raw = base64.b64decode(uri.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("The picture can't be read: draw it again.") from None
    return open_image(raw), t
