"""The tab "Fine-tune": a copy of a model goes to one class while one watches."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageSequence

from ddpm_demo.config import one_of
from ddpm_demo.devices import here
from ddpm_demo.inference.timing import spoken
from ddpm_demo.media import images
from ddpm_demo.models.zoo import available, models_folder
from ddpm_demo.training import finetune as core
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.ui.components import player
from ddpm_demo.ui.finetune.results import build_results
from ddpm_demo.ui.finetune.tuning import (
    ALL,
    PANELS,
    UNITS,
    ask,
    classes_of,
    header,
    joined,
    loss_curve,
    run,
    show_estimate,
    stop,
)
from ddpm_demo.ui.generate.tab import ModelChoice, find
from ddpm_demo.ui.server import runtime, work
from ddpm_demo.ui.server.runtime import friendly
from ddpm_demo.ui.server.work import LANE


def recorded() -> list[str]:
    """Shipped models that were fine-tuned, and whose way there was recorded."""
    return [name for name in available() if RunFolder(models_folder() / name).film.is_file()]


@friendly
def show_recorded(name: Any) -> Iterator[tuple[str, str]]:
    """Player and loss curve of a shipped run; nothing is computed.

    Raises:
        ValueError: there is no such run.
    """
    one_of("recorded run", name, tuple(recorded()))
    run = RunFolder(models_folder() / name)
    with Image.open(run.film) as film:
        sheets = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    log = run.rows()
    grids = [np.ascontiguousarray(images.cut(sheet, 16, scale=4)) for sheet in sheets]
    last, info = log[-1], runtime.model(name).info
    words = f"{name}: {last['step']} steps of {info['train']['batch_size']} pictures"
    title = f"{words}, recorded on another machine in {spoken(last['seconds'])}"
    about = {"model": name, "lr": info["train"]["lr"]}
    opening = header(grids[0], last["step"], len(log), title, about)
    at = zip([0, *(row["step"] for row in log)], [0, *(row["seconds"] for row in log)], grids)  # noqa: B905
    frames = [player.frame(step, None, grids[0], grid, seconds=s) for step, s, grid in at]
    yield joined(opening, *frames), loss_curve([(row["step"], row["train"]) for row in log])


def build_finetune_tab(choice: ModelChoice, tab: gr.Tab, local: bool) -> None:
    """Lay out the tab; call it inside of it.

    Args:
        local: the app is for the owner of this machine alone, who may train on folders of its disk
            and push to the Hub with its login.
    """
    gpu = runtime.has_gpu()
    usual = core.GPU_USUAL if gpu else core.CPU_USUAL
    names, films = available(), recorded()
    first = "cifar10" if "cifar10" in names else names[0]
    classes = classes_of(runtime.model(first))
    folder = gr.State(None, time_to_live=6 * 3600, delete_callback=work.forget)
    seen = gr.State(not films)
    # No gr.State, whose value would be the one at the time when the queue comes to it.
    ticket = gr.Number(0, precision=0, visible="hidden")
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(
                elem_id="tuner",
                panels=PANELS,
                empty="Press Start: sixteen seeds before, and the same seeds as training goes on.",
            )
            curve = gr.HTML(elem_id="tune-curve", padding=False)
            with gr.Row(visible=bool(films), elem_id="tune-recorded"):
                gr.HTML("Runs that this project recorded; their models are in the list.")
                replays = [gr.Button(f"Show {name}", size="sm", min_width=130) for name in films]
        with gr.Column(scale=1, min_width=280):
            with gr.Row(elem_id="tune-act"):
                start = gr.Button(
                    "Start", variant="primary", size="lg", elem_id="tune", min_width=90
                )
                halt = gr.Button("Stop", size="lg", elem_id="tune-stop", min_width=70)
                onward = gr.Button("Continue", size="lg", elem_id="tune-on", min_width=90)
                line = gr.HTML(
                    "Runs on this machine's GPU."
                    if gpu
                    else "Runs on this machine's CPU: small numbers, some minutes.",
                    elem_id="tune-line",
                    min_width=240,
                    padding=False,
                )
            base = gr.Dropdown(
                names,
                value=first,
                label="Base model",
                info="θ: a copy of it is trained; the base itself stays as it is.",
                elem_id="tune-base",
            )
            only = gr.Dropdown(
                [ALL, *classes],
                value="ship" if "ship" in classes else ALL,
                label="Class",
                info="y: which pictures the copy sees from now on.",
                elem_id="tune-class",
                allow_custom_value=True,
            )
            with gr.Group():
                length = gr.Number(
                    usual.get("epochs") or usual["steps"],
                    label="Length",
                    info="How long to train; an epoch sees each picture once.",
                    elem_id="tune-length",
                )
                unit = gr.Radio(
                    UNITS,
                    value="epochs" if "epochs" in usual else "steps",
                    label="Unit of the length",
                    show_label=False,
                    elem_id="tune-unit",
                )
            batch = gr.Number(
                usual["batch_size"],
                precision=0,
                label="Batch size",
                info="Pictures in a step, one update of θ.",
                elem_id="tune-batch",
            )
            guess = gr.Button("How long will it take?", size="sm", elem_id="tune-estimate")
            with gr.Accordion("More settings", open=False, elem_id="tune-more"):
                lr = gr.Number(
                    2e-4,
                    label="Learning rate",
                    info="Above 0, up to 0.01.",
                    step=1e-5,
                    elem_id="tune-lr",
                )
                grids = gr.Slider(
                    1, 40, 8, step=1, label="Grids", info="How often samples are drawn on the way."
                )
                device = gr.Dropdown(
                    ["auto", *here()],
                    value="auto",
                    label="Device",
                    info="“auto” takes a GPU if there is one.",
                    elem_id="tune-device",
                    visible=not runtime.ZERO,
                )
                source = gr.Textbox(
                    "",
                    label="Data",
                    info="Empty: what the base was trained on. Or cifar10, or folder:PATH.",
                    elem_id="tune-data",
                    visible=local,
                )
            made, follow = build_results(choice, folder, line, local)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    controls = [source, only, length, unit, batch, lr, grids, device]
    long = {**quiet, **LANE, **player.PROGRESS, "show_progress_on": screen}
    runs = []
    for button, resume in ((start, False), (onward, True)):
        asked = button.click(ask, folder, [folder, ticket, line], concurrency_limit=None, **quiet)
        runs.append(
            asked.success(
                functools.partial(run, local, resume),
                [folder, ticket, choice.own, base, *controls],
                [screen, line, curve, made],
                trigger_mode="multiple",  # one that was taken back does not stop the next one
                **long,
            )
        )
        follow(runs[-1])
    left = gr.Number(0, visible="hidden")  # not a State: without the queue, they do not change
    halt.click(stop, [folder, left], [line, left], queue=False, **quiet)
    left.change(lambda: player.note("Stopped."), outputs=screen, cancels=runs, queue=False, **quiet)
    guess.click(
        functools.partial(show_estimate, local), [choice.own, base, *controls], line, **long
    )
    shown = [screen, curve]
    for name, replay in zip(films, replays, strict=True):
        replay.click(functools.partial(show_recorded, name), None, shown, **quiet)

    def first_look(seen: bool) -> Iterator[Any]:
        """A recorded run, when the tab is opened for the first time."""
        if not seen:
            for said in show_recorded("cifar10-ship" if "cifar10-ship" in films else films[0]):
                yield *said, True

    tab.select(first_look, seen, [*shown, seen], **quiet)

    @friendly
    def chosen(own: Mapping[str, str], name: Any) -> Iterator[Any]:
        names = classes_of(find(name, own))
        yield gr.update(choices=[ALL, *names], value=names[0] if names else ALL)

    base.change(chosen, [choice.own, base], only, **quiet)
    choice.own.change(
        lambda own: gr.update(choices=[*available(), *own]), choice.own, base, **quiet
    )
