"""The box "Pause and change" below the player. `pausing` has what it does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.controls import QUIET, ModelChoice, RunButtons
from ddpm_demo.ui.generate.asked_change import CHANGES, NOTHING, VALUES
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.lazy import streamed

PROCEED = "ddpm_demo.ui.generate.pausing:proceed"
AGAIN = "again"  # the id of the button that the player itself presses
PLACE = "document.getElementById('player')?.place?.() ?? ''"
HELP = (
    "All of this goes on from the step that the timeline shows. Enlarge a picture to change or "
    "branch it alone. A run in which nothing is changed is the same to the last bit."
)


@dataclass(frozen=True)
class Pausing:
    """The controls, in the order in which `proceed` takes their values.

    Attributes:
        buttons: the buttons that go on, each by its way.
        first: breakpoints and changes. The first run has them, too.
        form: values of a change and of branches.
    """

    buttons: dict[str, gr.Button]
    pause: gr.Button
    until: gr.Number
    first: list[gr.Textbox]
    form: list[Any]


def build_pausing() -> Pausing:
    """Lay out the box, closed."""
    with gr.Accordion("Pause and change", open=False, elem_id="pausing"):
        gr.Markdown(HELP)
        with gr.Row(elem_classes="pausing-row"):
            pause = gr.Button("Pause", elem_id="pause", min_width=70)
            step = gr.Button("One step", elem_id="one-step", min_width=80)
            on = gr.Button("Go on", elem_id="go-on", variant="primary", min_width=80)
            until = gr.Number(0, label="t", precision=0, elem_id="until", min_width=70)
            to = gr.Button("Run to t", elem_id="run-to", min_width=80)
            breaks = gr.Textbox(
                "", label="Breakpoints", placeholder="700, 400", elem_id="breaks", min_width=120
            )
        with gr.Row(elem_classes="pausing-row"):
            kind = gr.Dropdown(
                [(words, key) for key, words in CHANGES.items()],
                value=NOTHING,
                label="Change",
                elem_id="change",
                min_width=200,
            )
            value = gr.Textbox("", label="Value", elem_id="value", min_width=80)
            once = gr.Checkbox(False, label="At this step only", elem_id="once", min_width=120)
            clear = gr.Button("Clear the drawing", elem_id="undraw", min_width=120)
        with gr.Row(elem_classes="pausing-row"):
            count = gr.Slider(2, 16, 16, step=1, label="Branches", elem_id="branches")
            switch = gr.Checkbox(
                True, label="Where the sampler adds no noise, branch with DDPM", elem_id="switch"
            )
            branch = gr.Button("Branch", elem_id="branch", min_width=80)
        changes = gr.Textbox(
            "",
            label="Changes of a new run",
            info="What to change on the way, as links and files write it: NAME=VALUE:T.",
            placeholder="z=0:400; eps=1.02:300",
            elem_id="changes",
        )
        again = gr.Button("Again", elem_id=AGAIN, elem_classes="unseen")
    _draw_with(kind, value, clear)
    ways = {"step": step, "on": on, "to": to, "branch": branch, "again": again}
    return Pausing(
        ways, pause, until, [breaks, changes], [kind, value, once, breaks, count, switch]
    )


def _draw_with(kind: gr.Dropdown, value: gr.Textbox, clear: gr.Button) -> None:
    """Show the brush while a change needs it. Each change begins with its own value."""
    js = f"""(kind) => {{
      document.getElementById('player')?.brush?.(/^(draw|keep)=/.test(kind));
      return ({VALUES!r})[kind] ?? '';
    }}"""
    kind.change(None, kind, value, js=js, **QUIET)
    clear.click(None, js="() => { document.getElementById('player')?.undraw?.(); }", **QUIET)


def connect_pausing(
    box: Pausing, choice: ModelChoice, visitor: gr.State, buttons: RunButtons, screen: gr.HTML
) -> list[Any]:
    """Returns the events that Stop and Pause cancel."""
    events = []
    place = gr.Textbox("", visible=False)
    inputs = [visitor, choice.own, place, box.until, *box.form]
    names = ", ".join(f"v{k}" for k in range(len(inputs)))
    js = f"({names}) => [{names.replace('v2', PLACE)}]"
    for way, button in box.buttons.items():
        buttons.begin(screen, button)
        event = button.click(
            functools.partial(streamed(PROCEED, loading=player.LOADING), way),
            inputs,
            screen,
            js=js,
            concurrency_id="model",
            concurrency_limit=settings.RUNS,
            **QUIET | player.progress(screen),
        )
        buttons.restore_after(event)
        events.append(event)
    return events
