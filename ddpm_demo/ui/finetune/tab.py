"""The tab "Fine-tune": a copy of a model learns one class while you watch.

`handlers` and `results` have what it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ddpm_demo.config import TrainConfig
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.components import controls, player
from ddpm_demo.ui.components.controls import FIRST, QUIET, ModelChoice, text
from ddpm_demo.ui.components.links import Links, Part
from ddpm_demo.ui.finetune import asked as words
from ddpm_demo.ui.finetune import link
from ddpm_demo.ui.finetune.asked import ALL, PANELS, UNITS, Asked, recorded
from ddpm_demo.ui.server import settings, work
from ddpm_demo.ui.server.lazy import called, streamed
from ddpm_demo.ui.server.work import LANE

HANDLERS = "ddpm_demo.ui.finetune.handlers"
RESULTS = "ddpm_demo.ui.finetune.results"
EMPTY = "Press Start to see 16 pictures change while the model learns."
WHY = {
    "tune-on": words.NOTHING_TO_CONTINUE,
    "tune-meter": words.NOTHING_TO_COMPARE,
    "tune-download": words.NOTHING_YET,
    "tune-push": words.NOTHING_YET,
}


@dataclass(frozen=True)
class Stage:
    """The parts that show a run.

    Attributes:
        folder: the visitor's own.
        ticket: a run begins with it. It is no gr.State, because the queue would read that too late.
        made: where a run leaves its `Result`, and `last` where it stays.
    """

    screen: gr.HTML
    curve: gr.HTML
    line: gr.HTML
    folder: gr.State
    ticket: gr.Number
    made: gr.State
    last: gr.State


@dataclass(frozen=True)
class Results:
    """What can be done with a result."""

    download: gr.DownloadButton
    meter: gr.Button
    table: gr.HTML
    upload: gr.UploadButton
    repo: gr.Textbox
    send: gr.Button


def _base() -> tuple[gr.Dropdown, gr.Dropdown]:
    names = available()
    first = FIRST if FIRST in names else names[0]
    classes = facts(first).classes
    base = gr.Dropdown(
        names,
        value=first,
        label="Base model",
        info="Train a copy of this one. It stays as it is.",
        elem_id="tune-base",
    )
    only = gr.Dropdown(
        [ALL, *classes],
        value=link.usual_class(classes),
        label="Class",
        info="Train the copy on these pictures only.",
        elem_id="tune-class",
        allow_custom_value=True,
    )
    return base, only


def _length() -> tuple[gr.Number, gr.Radio, gr.Number]:
    with gr.Group():
        length = gr.Number(
            words.STEPS,
            label="Length",
            info="How long to train. An epoch sees each picture once.",
            elem_id="tune-length",
        )
        unit = gr.Radio(
            UNITS, value="steps", label="Unit of the length", show_label=False, elem_id="tune-unit"
        )
    batch = gr.Number(
        words.BATCH,
        precision=0,
        elem_id="tune-batch",
        **text("batch_size", TrainConfig),
    )
    return length, unit, batch


def _more(local: bool) -> dict[str, Any]:
    """The other fields of `Asked`, which few change, in a box that is closed at first."""
    with gr.Accordion("More settings", open=False, elem_id="tune-more"):
        lr = gr.Number(
            words.LR,
            step=1e-5,
            elem_id="tune-lr",
            **text("lr", TrainConfig),
        )
        grids = gr.Slider(
            1,
            40,
            words.GRIDS,
            step=1,
            label="Grids",
            info="How often 16 pictures are drawn on the way.",
        )
        device = gr.Dropdown(
            ["auto"],
            value="auto",
            label="Device",
            info="“auto” takes a GPU if there is one.",
            elem_id="tune-device",
            visible=not settings.ZERO,
        )
        dataset = gr.Textbox(
            "",
            label="Data",
            info="Empty: what the base was trained on. Or cifar10, or folder:PATH.",
            elem_id="tune-data",
            visible=local,
        )
    return {"lr": lr, "grids": grids, "device": device, "dataset": dataset}


def _results(local: bool) -> Results:
    with gr.Accordion("Result", open=True):
        download = gr.DownloadButton(
            "Download weights", interactive=False, size="md", elem_id="tune-download"
        )
        meter = gr.Button("What did it forget?", interactive=False, size="md", elem_id="tune-meter")
        table = gr.HTML(elem_id="tune-table", padding=False)
        upload = gr.UploadButton("Load a .safetensors file", file_types=[".safetensors"], size="md")
        with gr.Column(visible=local):
            repo = gr.Textbox(
                label="Push to the Hub",
                info="Name of the new repository. Uses your Hugging Face login.",
                placeholder="YOU/cifar10-ship",
                elem_id="tune-repo",
            )
            send = gr.Button("Push", interactive=False, size="md", elem_id="tune-push")
    return Results(download, meter, table, upload, repo, send)


def build_finetune_tab(
    choice: ModelChoice, tab: gr.Tab, local: bool, links: Links | None = None
) -> None:
    """Lay out the tab. Call it inside `with gr.Tab(...)`.

    Args:
        links: the tab's part is added to them.
        local: the app is for the owner of this machine alone, who may train on folders of its disk
            and push to the Hub with its login.
    """
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(elem_id="tuner", panels=PANELS, empty=EMPTY)
            curve = gr.HTML(elem_id="tune-curve", padding=False)
        with gr.Column(scale=1, min_width=280, elem_classes="settings"):
            with gr.Row(elem_id="tune-act"):
                buttons = controls.RunButtons.build("Start", "tune", "tune-stop", "tuner")
                onward = gr.Button(
                    "Continue", size="lg", interactive=False, elem_id="tune-on", min_width=90
                )
                line = controls.line(words.CPU, "tune-line")
            replays = _replays()
            base, only = _base()
            length, unit, batch = _length()
            guess = gr.Button("How long will it take?", size="md", elem_id="tune-estimate")
            rest, results = _more(local), _results(local)
            controls.reasons(WHY)
    asked = Asked(only=only, length=length, unit=unit, batch=batch, **rest)
    folder = gr.State(None, time_to_live=6 * 3600, delete_callback=work.forget)
    ticket = gr.Number(0, precision=0, visible="hidden")
    stage = Stage(screen, curve, line, folder, ticket, gr.State(None), gr.State(None))
    what = [choice.own, base, *asked.all()]
    listed = functools.partial(_list_result, choice, results, stage)
    _connect_runs(stage, buttons, onward, what, local, listed)
    _connect_results(choice, results, stage, local)
    held = gr.State(None)
    _connect_base(choice, [base, held], only)
    if links is not None:
        _add_link(links, choice, [base, held], asked)
    estimate = functools.partial(streamed(f"{HANDLERS}:show_estimate"), local)
    guess.click(estimate, what, line, **_long(screen))
    for name, replay in replays.items():
        shown = functools.partial(streamed(f"{HANDLERS}:show_recorded"), name)
        replay.click(shown, None, [screen, curve], **QUIET)
    seen = gr.State(False)
    found = [screen, curve, seen, line, length, unit, batch, rest["device"]]
    tab.select(streamed(f"{HANDLERS}:first_look"), [seen, held], found, **QUIET)


def _add_link(links: Links, choice: ModelChoice, model: list[Any], asked: Asked) -> None:
    """Add the tab's part of a link.

    Args:
        model: the base, and the base of a link.
    """
    fields = [getattr(asked, field) for field in link.FIELDS]
    part = Part("finetune", link.NAMES, link.read, [*model, *fields], go="tune")
    changes = [control.change for control in (model[0], *fields)]
    inputs = [choice.own, model[0], *asked.all()]
    links.add(part, changes, called(f"{HANDLERS}:query"), inputs=inputs, preprocess=False)


def _long(screen: gr.HTML) -> dict[str, Any]:
    """Options of events that wait for their turn among all visitors."""
    return {**QUIET, **LANE, **player.progress(screen)}


def _replays() -> dict[str, gr.Button]:
    """A button for each recorded run, by the name of its model."""
    films = recorded()
    with gr.Row(visible=bool(films), elem_id="tune-recorded"):
        gr.HTML("No time? Watch a recorded run:", padding=False, min_width=120)
        return {name: gr.Button(name, size="md", min_width=100) for name in films}


def _connect_runs(
    stage: Stage,
    buttons: controls.RunButtons,
    onward: gr.Button,
    what: list[Any],
    local: bool,
    results: Callable[[Any], None],
) -> None:
    """Connect Start, Stop and Continue.

    Args:
        what: the base and the controls of a run.
        results: is called with the event of a run.
    """
    three = [*buttons.both, onward]
    shown = [stage.screen, stage.line, stage.curve, stage.made]
    rest = (called(f"{HANDLERS}:rest"), stage.folder, three)
    runs = []
    for button, resume in ((buttons.go, False), (onward, True)):
        buttons.begin(stage.screen, button, hide=[onward])
        asked = button.click(
            called(f"{HANDLERS}:ask"),
            stage.folder,
            [stage.folder, stage.ticket, stage.line],
            concurrency_limit=None,
            **QUIET,
        )
        asked.failure(*rest, **QUIET)
        event = asked.success(
            functools.partial(streamed(f"{HANDLERS}:run"), local, resume),
            [stage.folder, stage.ticket, *what],
            shown,
            trigger_mode="multiple",  # one that was cancelled does not stop the next one
            **_long(stage.screen),
        )
        event.then(*rest, **QUIET)
        results(event)
        runs.append(event)
    buttons.ending()
    left = gr.Number(0, visible="hidden")  # not a State: without the queue, they do not change
    stop = called(f"{HANDLERS}:stop")
    buttons.stop.click(stop, [stage.folder, left], [stage.line, left], queue=False, **QUIET)
    gone = left.change(
        lambda: player.note("Cancelled."), None, stage.screen, cancels=runs, queue=False, **QUIET
    )
    gone.then(*rest, **QUIET)


def _list_result(choice: ModelChoice, results: Results, stage: Stage, event: Any) -> None:
    """After a run, list its model, so that it can be downloaded, judged and pushed."""
    event.success(
        functools.partial(called(f"{RESULTS}:listed"), choice),
        [choice.own, stage.made],
        [
            stage.line,
            choice.own,
            choice.name,
            results.download,
            results.meter,
            results.send,
            stage.last,
            stage.made,
        ],
        **QUIET,
    )


def _connect_results(choice: ModelChoice, results: Results, stage: Stage, local: bool) -> None:
    """Connect the buttons of the box "Result"."""
    results.meter.click(
        streamed(f"{RESULTS}:forgetting"),
        stage.last,
        results.table,
        concurrency_id="model",  # it samples, as Generate does
        concurrency_limit=settings.RUNS,
        **QUIET,
    )
    kept = results.upload.upload(work.own_folder, stage.folder, stage.folder, **QUIET)
    kept.success(
        functools.partial(called(f"{RESULTS}:add_file"), choice),
        [stage.folder, choice.own, results.upload],
        [stage.line, choice.own, choice.name],
        preprocess=False,
        **QUIET,
    )
    push = functools.partial(streamed(f"{RESULTS}:push"), local)
    results.send.click(push, [stage.last, results.repo], stage.line, **QUIET)


def _connect_base(choice: ModelChoice, model: list[Any], only: gr.Dropdown) -> None:
    """Show the classes of the chosen base. A visitor's own model can be a base."""
    model[0].change(streamed(f"{HANDLERS}:chosen"), [choice.own, *model], only, **QUIET)
    choice.follow(model[0])
