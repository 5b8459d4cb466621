"""The tab "Forward noising": a picture dissolves into noise.

`handlers` and forward.js have what it does.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.helpers import Examples

from ddpm_demo.config import T_MAX, T_MIN, DiffusionConfig, default_timesteps
from ddpm_demo.media.web_page import PLAYER, joined
from ddpm_demo.ui.components.controls import QUIET, ModelChoice, text
from ddpm_demo.ui.components.links import Links, Part
from ddpm_demo.ui.components.player import export_film
from ddpm_demo.ui.components.player.qr import qr_code
from ddpm_demo.ui.forward import link
from ddpm_demo.ui.forward.asked import EXAMPLES, SIZE, SIZES, words_of
from ddpm_demo.ui.forward.figure import TEMPLATE
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.lazy import called, streamed

HERE = Path(__file__).parent
HANDLERS = "ddpm_demo.ui.forward.handlers"
SCRIPTS = ("forward.js", "denoise.js", "link.js")
# Not a prop: Gradio drops those of a component that gets a value before its tab is opened.
NAMES = f"const NAMES = {json.dumps([Path(path).stem.capitalize() for path in EXAMPLES])};\n"


def _noiser() -> gr.HTML:
    """Pictures, plots and slider; the value is one JSON message, see `handlers`."""
    return gr.HTML(
        html_template=TEMPLATE,
        css_template=(HERE / "forward.css").read_text(encoding="utf-8"),
        js_on_load=NAMES + joined(PLAYER, ["present.js"]) + joined(HERE, SCRIPTS),
        apply_default_css=False,
        server_functions=[export_film, qr_code],
        elem_id="noiser",
    )


def _shape(process: DiffusionConfig) -> tuple[gr.Radio, gr.Slider]:
    view = gr.Radio(
        [("Both", "both"), ("Linear", "linear"), ("Cosine", "cosine")],
        value="both",
        **text("schedule", DiffusionConfig),
        elem_id="forward-view",
    )
    length = gr.Slider(
        T_MIN,
        T_MAX,
        value=process.T,
        step=1,
        **text("T", DiffusionConfig),
        elem_id="forward-T",
    )
    return view, length


def _look(process: DiffusionConfig) -> tuple[gr.Radio, gr.Radio]:
    size = gr.Radio(
        list(SIZES),
        value=SIZE,
        label="Resolution",
        info="Pixels a side of the square that is cut from your picture.",
        elem_id="forward-size",
    )
    noise = gr.Radio(
        [("Gaussian", "gaussian"), ("Laplace", "laplace")],
        value=process.noise,
        **text("noise", DiffusionConfig),
        elem_id="forward-noise",
    )
    return size, noise


def _more(process: DiffusionConfig) -> tuple[gr.Number, gr.Number, gr.Number]:
    with gr.Accordion("More settings", open=False, elem_id="forward-more"):
        start = gr.Number(
            process.beta_start,
            **text("beta_start", DiffusionConfig),
            step=1e-4,
            elem_id="forward-beta-start",
        )
        end = gr.Number(
            process.beta_end,
            **text("beta_end", DiffusionConfig),
            step=1e-3,
            elem_id="forward-beta-end",
        )
        seed = gr.Number(
            0,
            label="Seed",
            info="Same seed, same noise.",
            precision=0,
            elem_id="forward-seed",
        )
    return start, end, seed


def build_forward_tab(links: Links | None = None, choice: ModelChoice | None = None) -> None:
    """Lay out the tab. Call it inside `with gr.Tab(...)`.

    Args:
        links: the tab's part is added to them.
        choice: the list of models; None if there are no models.
    """
    process = DiffusionConfig()
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            noiser = _noiser()
            asks = _shot() if choice else None
        with gr.Column(scale=1, min_width=280, elem_classes="settings"):
            picture = gr.Image(
                EXAMPLES[0],
                label="Your picture x₀",
                sources=["upload", "clipboard", "webcam"],
                height=220,
                buttons=[],
                elem_id="forward-picture",
            )
            examples = gr.Examples(
                EXAMPLES, picture, label="Example pictures", elem_id="forward-examples"
            )
            view, length = _shape(process)
            size, noise = _look(process)
            timesteps = gr.Textbox(
                words_of(default_timesteps(process.T)),
                label="Timesteps of the strip",
                info="Which xₜ the strip shows: whole numbers from 1 to T.",
                elem_id="forward-timesteps",
            )
            start, end, seed = _more(process)
    kept = gr.Textbox("", visible="hidden")
    _connect_picture(noiser, picture, examples, [kept, size, noise, seed])
    _connect_schedules(noiser, [view, length, start, end, timesteps])
    links = links or Links()
    _add_link(links, picture, [kept, size, noise, seed, view, timesteps, length, start, end])
    if choice and asks:
        _connect_shot(choice, *asks, seed)
    links.at_load("forward", called(f"{HANDLERS}:first_message"), noiser)


def _shot() -> tuple[gr.Button, gr.HTML]:
    """A box, closed at first, that asks a model what it sees in the picture at t."""
    style = f"<style>{(HERE / 'shot.css').read_text(encoding='utf-8')}</style>"
    with gr.Accordion("What does a model see in it?", open=False, elem_id="shot"):
        gr.Markdown(
            "The picture goes to the model that is chosen in Generate, in its size: it is noised "
            "to the *t* of the slider by the model’s own schedule, and the network is asked once."
        )
        button = gr.Button("Denoise in one shot", elem_id="shoot")
        return button, gr.HTML("", elem_id="shot-result", padding=False, head=style)


def _connect_shot(choice: ModelChoice, button: gr.Button, result: gr.HTML, seed: gr.Number) -> None:
    js = "(own, name, _, seed) => [own, name, document.getElementById('noiser').shot(), seed]"
    button.click(
        streamed("ddpm_demo.ui.forward.shot:shot"),
        [choice.own, choice.name, gr.Textbox("", visible=False), seed],
        result,
        js=js,
        concurrency_id="model",
        concurrency_limit=settings.RUNS,
        show_progress="minimal",
        api_visibility="private",
    )


def _add_link(links: Links, picture: gr.Image, controls: list[Any]) -> None:
    """Add the tab's part of a link.

    Args:
        controls: what is kept of the picture, and all other fields of `link.Shown`.
    """
    changes = [control.change for control in controls]
    kept, *rest = controls
    part = Part("forward", link.NAMES, link.read, [picture, *rest, kept])
    js = f"(kept, ...rest) => [kept.startsWith('data:') ? {link.UPLOAD!r} : kept, ...rest]"
    links.add(part, changes, link.query, inputs=controls, js=js, preprocess=False)


# preprocess=False: what people typed or uploaded comes as it is, so that a bad value is refused in
# one sentence of ours. postprocess=False: a picture is shown without a file.
RAW: dict[str, Any] = {**QUIET, "preprocess": False, "postprocess": False}
# A link sets controls before the tab is opened. Until then, only `first_message` counts.
SHOWN = "document.querySelector('#noiser [data-ready]')"


def _connect_picture(
    noiser: gr.HTML, picture: gr.Image, examples: Examples, controls: list[Any]
) -> None:
    """Connect what changes the picture or its noise.

    Args:
        controls: what is kept of the picture, size, noise and seed.
    """
    kept, size, noise, seed = controls
    drawn: dict[str, Any] = {
        "fn": functools.partial(called(f"{HANDLERS}:set_picture"), picture.value),
        "inputs": [picture, kept, size, noise, seed],
        "outputs": [noiser, picture, kept],
        "js": f"(file, kept, size, ...rest) => [file, kept, {SHOWN} ? size : null, ...rest]",
        **RAW,
    }
    # Not `change`, which comes twice for an upload.
    gr.on([picture.input, size.change, noise.change, seed.submit, seed.blur], **drawn)
    examples.load_input_event.then(**drawn)


def _connect_schedules(noiser: gr.HTML, controls: list[Any]) -> None:
    """Connect what changes the schedules.

    Args:
        controls: view, length, first and last beta, and the timesteps of the strip.
    """
    view, length, start, end, timesteps = controls
    typed = (start, end, timesteps)
    settled = [view.change, *(f.submit for f in typed), *(f.blur for f in typed)]
    js = f"(view, ...rest) => [{SHOWN} ? view : null, ...rest]"
    gr.on(settled, called(f"{HANDLERS}:set_schedules"), controls, noiser, js=js, **RAW)
    set_length = called(f"{HANDLERS}:set_length")
    length.change(set_length, controls, [noiser, timesteps], js=js, **RAW)
