"""The tab "Measure": its layout. What it does is in `measuring`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from ddpm_demo.config import SAMPLER_NAMES
from ddpm_demo.inference.labels import ANY, EACH
from ddpm_demo.models.zoo import available
from ddpm_demo.ui.components import player
from ddpm_demo.ui.generate.tab import SAMPLERS, ModelChoice, find, first_model
from ddpm_demo.ui.measure.measuring import ALL, IMAGES_MOST, PANELS, how_long, offer, run
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runtime import friendly
from ddpm_demo.ui.server.work import LANE


def build_measure_tab(choice: ModelChoice, local: bool) -> None:
    """Lay out the tab; call it inside `with gr.Tab(...)`.

    Args:
        local: folders of this disk are allowed.
    """
    names, default = available(), first_model()
    first = offer(runtime.model(default or names[0]))
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(
                elem_id="measured",
                panels=PANELS,
                empty="Press Measure: samples are drawn, counted and judged.",
            )
            result = gr.HTML(elem_id="measure-result", padding=False)
        with gr.Column(scale=1, min_width=280):
            with gr.Row(elem_id="measure-act"):
                start = gr.Button(
                    "Measure", variant="primary", size="lg", elem_id="measure", min_width=120
                )
                halt = gr.Button("Stop", size="lg", elem_id="measure-stop", min_width=80)
                pace = gr.HTML(elem_id="measure-pace", min_width=240, padding=False)
                line = gr.HTML(
                    "Samples are drawn here and now, then judged.",
                    elem_id="measure-line",
                    min_width=240,
                    padding=False,
                )
            name = gr.Dropdown(
                names,
                value=default,
                label="Model",
                info="ε_θ: yours are in the list, too.",
                elem_id="measure-model",
            )
            wanted = gr.CheckboxGroup(label="Metrics", elem_id="measure-metrics", **first[0])
            why = gr.HTML(elem_id="measure-why", padding=False, **first[1])
            n = gr.Number(
                precision=0,
                label="Samples",
                info="n: at least twice the features of the classifier.",
                elem_id="measure-n",
                **first[2],
            )
            sampler = gr.Dropdown(
                [(SAMPLERS[k], k) for k in SAMPLER_NAMES],
                label="Sampler",
                info="How x_s follows from x_t.",
                elem_id="measure-sampler",
                **first[3],
            )
            steps = gr.Slider(
                1,
                step=1,
                label="Steps",
                info="How many of the T steps to take.",
                elem_id="measure-steps",
                **first[4],
            )
            label = gr.Dropdown(
                label="Class",
                info="y: what to draw. With “any”, the model decides, and guidance does nothing.",
                elem_id="measure-class",
                **first[5],
            )
            guidance = gr.Slider(
                0,
                8,
                step=0.5,
                label="Guidance",
                info="w: how strongly the class is insisted on.",
                **first[6],
            )
            against = gr.Dropdown(
                label="Compared with",
                info="Which test pictures.",
                elem_id="measure-against",
                **first[7],
            )
            with gr.Accordion("Settings of bits/dim", open=False):
                pictures = gr.Number(
                    8,
                    precision=0,
                    label="Test pictures",
                    info=f"1 to {IMAGES_MOST}.",
                    elem_id="measure-images",
                )
                terms = gr.Slider(
                    2,
                    step=1,
                    label="Terms",
                    info="Calls of the network for each picture; T is the whole bound.",
                    **first[8],
                )

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    asked = [wanted, n, sampler, steps, label, guidance, against, pictures, terms]
    controls = [choice.own, name, *asked]
    long = {**quiet, **LANE, **player.PROGRESS, "show_progress_on": screen}
    waits = start.click(lambda: "Waiting for its turn…", outputs=line, queue=False, **quiet)
    event = waits.success(functools.partial(run, local), controls, [screen, line, result], **long)
    halt.click(
        lambda: (player.note("Stopped."), "Stopped: nothing was kept.", ""),
        outputs=[screen, line, result],
        cancels=[event],
        queue=False,
        **quiet,
    )
    offered = [wanted, why, n, sampler, steps, label, guidance, against, terms]
    quick: dict[str, Any] = {**quiet, "queue": False, "trigger_mode": "always_last"}

    @friendly
    def chosen(own: Mapping[str, str], model: Any) -> Iterator[Any]:
        yield [gr.update(**options) for options in offer(find(model, own))]

    name.change(chosen, [choice.own, name], offered, **quiet)
    label.input(lambda y: ALL if y in (EACH, ANY) else y, label, against, **quiet)
    choice.own.change(
        lambda own: gr.update(choices=[*available(), *own]), choice.own, name, **quiet
    )
    # At each change, and when the page is loaded. What Gradio would check are the choices, and
    # between the change of a model and that of its choices they are of two models.
    gr.on(None, how_long, controls, pace, preprocess=False, **quick)
