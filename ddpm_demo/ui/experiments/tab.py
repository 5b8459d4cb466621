"""The tab "Experiments": a list of questions, and the chosen one. It doesn't import torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import gradio as gr

from ddpm_demo.config import Setting, settings
from ddpm_demo.experiments import EXPERIMENTS, Experiment
from ddpm_demo.experiments.asked import Plane
from ddpm_demo.models.zoo import available
from ddpm_demo.ui.components import controls
from ddpm_demo.ui.components.controls import QUICK, QUIET, ModelChoice
from ddpm_demo.ui.components.links import Links, Part
from ddpm_demo.ui.experiments import link
from ddpm_demo.ui.experiments.cloud import build_cloud
from ddpm_demo.ui.server import work
from ddpm_demo.ui.server.lazy import called, streamed
from ddpm_demo.ui.server.work import LANE

HANDLERS = "ddpm_demo.ui.experiments.handlers"
STYLE = Path(__file__).with_name("experiments.css")
EMPTY = '<p class="empty">Press Run. What comes out is shown here.</p>'
# Another card clears the result. A link's card may show its run already, and keeps it.
CLEAR = f"""(card) => {{
  const shown = document.querySelector('#experiment-result [data-experiment]');
  if (shown && shown.dataset.experiment === card) return [0, 0].map(() => ({{__type__: 'update'}}));
  return [{json.dumps(EMPTY)}, ''];
}}"""
SLIDER = 100  # whole numbers up to this are chosen with a slider


def build_experiments_tab(choice: ModelChoice, tab: gr.Tab, links: Links) -> None:
    """Lay out the tab. Call it inside `with gr.Tab(...)`."""
    rows = list(EXPERIMENTS.values())
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    card = gr.Radio(
        [(row.question, row.name) for row in rows],
        value=rows[0].name,
        show_label=False,
        container=False,
        elem_id="experiment-cards",
    )
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            result = gr.HTML(EMPTY, elem_id="experiment-result", padding=False, head=style)
        with gr.Column(scale=1, min_width=280, elem_classes="settings"):
            about = gr.HTML(_about(rows[0]), elem_id="experiment-about", padding=False)
            with gr.Row(elem_id="experiment-act"):
                buttons = controls.RunButtons.build(
                    "Run", "experiment-run", "experiment-stop", "experiment-result"
                )
                pace = gr.HTML(elem_id="experiment-pace", min_width=240, padding=False)
                line = controls.line("", "experiment-line")
            groups, inputs, keeping = [], [], []
            for row in rows:
                with gr.Group(visible=row is rows[0]) as group:
                    inputs += [_control(row, name, choice) for name in settings(row.settings)]
                    if row.keeps:
                        button = f"experiment-{row.name}-keep"
                        keeping.append(gr.Button("Keep the model", size="md", elem_id=button))
                groups.append(group)
    folder = gr.State(None, time_to_live=6 * 3600, delete_callback=work.forget)
    _connect_run([choice.own, folder, card, *inputs], buttons, [line, result, folder])
    kept = functools.partial(called(f"{HANDLERS}:keep"), choice)
    for keep in keeping:
        keep.click(kept, [choice.own, folder, card], [line, choice.own, choice.name], **QUIET)
    _connect_cards(card, [about, *groups])
    card.change(None, card, [result, line], js=CLEAR, queue=False, **QUIET)
    changes = [card.change, *(control.change for control in inputs)]
    part = Part("experiments", link.NAMES, link.read, [card, *inputs], "experiment-run")
    links.add(part, changes, link.query, inputs=[card, *inputs], preprocess=False)
    timed = (called(f"{HANDLERS}:how_long"), [choice.own, card, *inputs], pace)
    controls.answer(changes, *timed, preprocess=False)
    tab.select(*timed, preprocess=False, **QUICK)


def _about(row: Experiment) -> str:
    return f"<h2>{row.question}</h2><p>{row.about}</p>"


def _connect_run(what: list[Any], buttons: controls.RunButtons, shown: list[Any]) -> None:
    """Connect Run and Stop."""
    line = shown[0]
    js = """() => [{__type__: 'update', visible: 'hidden'}, {__type__: 'update', visible: true,
      value: 'Stop', interactive: true}, 'Waiting for its turn…']"""
    waits = buttons.go.click(None, None, [*buttons.both, line], js=js, **QUIET)
    event = waits.success(
        streamed(f"{HANDLERS}:run"), what, shown, preprocess=False, **{**QUIET, **LANE}
    )
    buttons.restore_after(event, {line: "Stopped. What has come so far stays."})
    buttons.ending()
    buttons.stop.click(None, cancels=[event], queue=False, **QUIET)


def _connect_cards(card: gr.Radio, shown: list[Any]) -> None:
    """Show the settings of the chosen card."""

    def chosen(name: str) -> list[Any]:
        row = EXPERIMENTS.get(name) or next(iter(EXPERIMENTS.values()))
        return [_about(row), *(gr.update(visible=k == row.name) for k in EXPERIMENTS)]

    card.change(chosen, card, shown, queue=False, **QUIET)


def _control(row: Experiment, name: str, choice: ModelChoice) -> Any:
    """The control of a setting, by its type and limits."""
    field, about = settings(row.settings)[name]
    first: Any = field.default
    look: dict[str, Any] = {
        "label": about.label or name,
        "info": about.sentence,
        "elem_id": f"experiment-{row.name}-{name}",
    }
    if name == "model" or name.endswith("_model"):
        return _models(first, choice, look | {"info": controls.MODEL["info"]})
    if row.settings is Plane and name == "points":
        return build_cloud(look)
    if about.upload:
        look.pop("info")
        return gr.Image(sources=["upload", "clipboard"], height=160, buttons=[], **look)
    if about.choices:
        return gr.Dropdown(list(about.choices), value=first, **look)
    if isinstance(first, bool):
        return gr.Checkbox(first, **look)
    if isinstance(first, tuple):
        return gr.Textbox(", ".join(map(str, first)), max_lines=1, **look)
    if isinstance(first, str):
        return gr.Textbox(first, max_lines=1, **look)
    return _number(first, about, look)


def _models(wanted: str, choice: ModelChoice, look: dict[str, Any]) -> Any:
    names = available()
    first = wanted if wanted in names else names[0]
    control = gr.Dropdown(names, value=first, allow_custom_value=True, **look)
    choice.follow(control)
    return control


def _number(first: Any, about: Setting, look: dict[str, Any]) -> Any:
    low, high = about.low, about.high
    fine = low is not None and high is not None and 0 < low < high / 1000  # no slider can set it
    if low is not None and high is not None and high <= SLIDER and not fine:
        step = 1 if about.whole else 0.01 * (high - low)
        return gr.Slider(low, high, value=first, step=step, **look)
    return gr.Number(first, precision=0 if about.whole else None, **look)
