"""The tab "Measure": how good a model's pictures are. `handlers` has what it does."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr

from ddpm_demo.config import SampleConfig
from ddpm_demo.models.facts import ANY, EACH, Facts
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.components import controls, player
from ddpm_demo.ui.components.controls import QUICK, QUIET, ModelChoice, first_model
from ddpm_demo.ui.components.links import Links, Part
from ddpm_demo.ui.measure import link
from ddpm_demo.ui.measure.asked import (
    ALL,
    FD,
    IMAGES,
    IMAGES_MOST,
    PANELS,
    TERMS,
    Asked,
    N,
    metrics,
)
from ddpm_demo.ui.server.lazy import called, streamed
from ddpm_demo.ui.server.work import LANE

HANDLERS = "ddpm_demo.ui.measure.handlers"
EMPTY = "Press Measure. The model draws new pictures here, and a classifier judges them."
ENOUGH = 2 * N  # for every shipped classifier, until `chosen` says what the model's own needs
STOPPED = "Stopped. Nothing was kept."
# If one class is drawn, the class of the data follows it.
SAME = f"""(words) =>
  words.length === 1 && ![{EACH!r}, {ANY!r}].includes(words[0]) ? words[0] : {ALL!r}"""


def _sampling(model: Facts, best: SampleConfig) -> dict[str, Any]:
    """The controls of the samples."""
    n = gr.Number(
        ENOUGH,
        precision=0,
        label="Samples",
        info="More samples measure more exactly, and take longer.",
        elem_id="measure-n",
    )
    sampler = controls.sampler_list(best.sampler, "measure-sampler")
    steps = controls.steps_slider(model, best, "measure-steps")
    labels = controls.class_list(model, best.labels, "measure-class")
    classes = bool(model.classes)
    guidance = controls.guidance_slider(best.guidance, labels, classes, "measure-guidance")
    against = gr.Dropdown(
        [ALL, *model.classes],
        value=ALL,
        visible=classes,
        label="Compared with real pictures of",
        elem_id="measure-against",
        allow_custom_value=True,  # a class of another model is checked by us
    )
    return {
        "n": n,
        "sampler": sampler,
        "steps": steps,
        "labels": labels,
        "guidance": guidance,
        "against": against,
    }


def _bits(model: Facts) -> dict[str, Any]:
    """The controls of bits/dim."""
    T = model.diffusion.T
    with gr.Accordion("Settings of bits/dim", open=False):
        images = gr.Number(
            IMAGES,
            precision=0,
            label="Test pictures",
            info=f"1 to {IMAGES_MOST}.",
            elem_id="measure-images",
        )
        terms = gr.Slider(
            2,
            T,
            value=min(TERMS, T),
            step=1,
            label="Terms",
            info="How many steps of the way are measured. T = all of them.",
        )
    return {"images": images, "terms": terms}


def build_measure_tab(
    choice: ModelChoice, tab: gr.Tab, local: bool, links: Links | None = None
) -> None:
    """Lay out the tab. Call it inside `with gr.Tab(...)`.

    Args:
        local: folders of this disk are allowed.
        links: the tab's part is added to them.
    """
    names = available()
    first = first_model() or names[0]
    model = facts(first)
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(elem_id="measured", panels=PANELS, empty=EMPTY)
            result = gr.HTML(elem_id="measure-result", padding=False)
        with gr.Column(scale=1, min_width=280, elem_classes="settings"):
            with gr.Row(elem_id="measure-act"):
                buttons = controls.RunButtons.build(
                    "Measure", "measure", "measure-stop", "measured"
                )
                pace = gr.HTML(elem_id="measure-pace", min_width=240, padding=False)
                line = controls.line("", "measure-line")
            name = gr.Dropdown(names, value=first, elem_id="measure-model", **controls.MODEL)
            wanted = gr.CheckboxGroup(
                [(words, metric) for metric, words in metrics().items()],
                value=[FD],
                label="What to measure",
                elem_id="measure-metrics",
            )
            why = gr.HTML(elem_id="measure-why", padding=False, visible=False)
            settings = _sampling(model, model.best) | _bits(model)
    asked = Asked(wanted=wanted, **settings)
    shown = [screen, line, result, gr.State(None)]
    _connect_run([choice.own, name, *asked.all()], buttons, shown, local)
    held = gr.State(None)
    _connect_settings(choice, [name, held], asked, [pace, why], tab)
    if links is not None:
        part = Part("measure", link.NAMES, link.read, [name, held, *asked.all()], go="measure")
        changes = [control.change for control in (name, *asked.all())]
        inputs = [choice.own, name, *asked.all()]
        links.add(part, changes, called(f"{HANDLERS}:query"), inputs=inputs, preprocess=False)


def _connect_run(
    what: list[Any], buttons: controls.RunButtons, shown: list[Any], local: bool
) -> None:
    """Connect Measure and Stop.

    Args:
        what: the model and the controls of a run.
        shown: player, line, result, and the report of the last run.
    """
    screen, line, result, kept = shown
    buttons.begin(screen)
    waits = buttons.go.click(None, None, line, js="() => 'Waiting for its turn…'", **QUIET)
    event = waits.success(
        functools.partial(streamed(f"{HANDLERS}:run"), local),
        [kept, *what],
        shown,
        **{**QUIET, **LANE, **player.progress(screen)},
    )
    buttons.restore_after(event, {line: STOPPED, result: ""})
    buttons.ending()
    stopped = {"fn": lambda: player.note("Stopped."), "outputs": screen}
    buttons.stop.click(**stopped, cancels=[event], queue=False, **QUIET)


def _connect_settings(
    choice: ModelChoice, model: list[Any], asked: Asked, lines: list[gr.HTML], tab: gr.Tab
) -> None:
    """Connect the estimate of time, and what a model changes.

    Args:
        model: its name, and the model of a link.
        lines: one for the time, and one for what the model can't have.
    """
    (pace, why), name = lines, model[0]
    what, offered, seen = [choice.own, *model], [*asked.all(), why], gr.State(False)
    chosen = streamed(f"{HANDLERS}:chosen")
    name.change(chosen, what, offered, **QUIET)
    first = tab.select(chosen, [*what, seen], [*offered, seen], **QUIET)
    asked.labels.input(None, asked.labels, asked.against, js=SAME, **QUIET)
    choice.follow(name)
    # Gradio would check the choices. But between the change of a model and that of its
    # choices they are of two models.
    timed = (called(f"{HANDLERS}:how_long"), [choice.own, name, *asked.all()], pace)
    changes = [name.change, *(control.change for control in asked.all())]
    controls.answer(changes, *timed, preprocess=False)
    first.then(*timed, preprocess=False, **QUICK)
