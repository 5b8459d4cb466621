"""The trajectory player: shows a run live, then replays it in the browser without the server.

`messages` has what Python sends to it, `export` makes files, and the scripts are the browser's
half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from ddpm_demo.media.web_page import STYLES, joined, shell
from ddpm_demo.ui.components.player.export import MIMES as MIMES
from ddpm_demo.ui.components.player.export import export_film as export_film
from ddpm_demo.ui.components.player.export import file_name as file_name
from ddpm_demo.ui.components.player.messages import PANELS as PANELS
from ddpm_demo.ui.components.player.messages import PANES as PANES
from ddpm_demo.ui.components.player.messages import STEP_PANELS as STEP_PANELS
from ddpm_demo.ui.components.player.messages import Pictures as Pictures
from ddpm_demo.ui.components.player.messages import frame as frame
from ddpm_demo.ui.components.player.messages import header as header
from ddpm_demo.ui.components.player.messages import note as note
from ddpm_demo.ui.components.player.messages import paused as paused
from ddpm_demo.ui.components.player.messages import starting as starting
from ddpm_demo.ui.components.player.messages import stream as stream
from ddpm_demo.ui.components.player.qr import qr_code
from ddpm_demo.ui.components.player.source import sampler_code
from ddpm_demo.ui.server.runs import pixels


def progress(screen: gr.HTML) -> dict[str, Any]:
    """Options of events that fill a player.

    It learns by them its place in the queue, and when a run is over.
    """
    return {"show_progress": "minimal", "show_progress_on": screen}


LOADING = starting("The model is being loaded. Your run begins by itself…")
"""For a click while the server is still starting: see `lazy.streamed`."""

HERE = Path(__file__).parent


def web_page(_: Any = None) -> str:
    """Reachable by anyone who can reach the page: a file that shows a run, without the run."""
    return shell()


def script() -> str:
    """The browser's half as one script, as Gradio takes it: modules cannot be imported there."""
    return f"{joined()}\nstartPlayer({{ element, props, server, watch, trigger }});\n"


def Player(
    value: str = "",
    *,
    panels: Iterable[str] = PANELS.values(),
    empty: str = "Press Generate to start.",
    step: bool = False,
    opening: Callable[..., dict[str, Any]] | None = None,
    link: str = "",
    **options: Any,
) -> gr.HTML:
    """The component. Fill it by a handler that yields the strings of `stream`.

    Its event `begun` comes when a run begins, whoever made it.

    This is a function because Gradio writes a .pyi file beside the source of each subclass.

    Args:
        value: a string made by this module, or nothing.
        panels: the labels shown before the first run. Each run brings its own.
        empty: the sentence shown before the first run.
        step: keep room for the line of what a step computes.
        opening: called by a page that has shown nothing yet. It returns a run to play, or words to
            show until there is one, or nothing.
        link: the tab whose links hold what is shown, if there is one. Its runs can be kept.
        options: of `gr.HTML`: elem_id, visible ...; and `again`, the id of a button that makes the
            run that is shown once more.
    """
    own = [opening] if opening else []
    styles = "\n".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    return gr.HTML(
        value,
        html_template=(HERE / "player.html").read_text(encoding="utf-8"),
        js_on_load=script(),
        # Not as css_template: that is compiled and set again at each message.
        head=f"<style>{styles}</style>",
        apply_default_css=False,
        server_functions=[*(export_film, sampler_code, qr_code, web_page, pixels), *own],
        opening=opening.__name__ if opening else "",
        labels=list(panels),
        panes=list(PANELS) if step else [],
        empty=empty,
        step=step,
        link=link,
        **options,
    )
