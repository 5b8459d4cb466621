"""A field on which a visitor draws points, and the text box that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

SCRIPT = Path(__file__).with_name("cloud.js")
FIELD = """<div class="cloud">
  <canvas width="240" height="240" role="img"
    aria-label="Draw points here, or write them into the box below."></canvas>
  <button type="button">Clear</button>
</div>"""


def build_cloud(look: dict[str, Any]) -> gr.Textbox:
    """Lay out the field and its text box, the control. `look` has its label, info and id."""
    box = gr.Textbox("", max_lines=1, render=False, **look)
    gr.HTML(
        html_template=FIELD,
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        padding=False,
        box=look["elem_id"],
    )
    return box.render()
