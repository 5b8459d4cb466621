"""The tab "Generate": pictures come out of noise, step by step. `handlers` has what it does."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ddpm_demo.config import SPACINGS, SampleConfig
from ddpm_demo.models.facts import Facts
from ddpm_demo.models.zoo import available, facts, how_to_get_models
from ddpm_demo.ui.components import controls, player
from ddpm_demo.ui.components.controls import (
    MOST,
    QUICK,
    QUIET,
    ModelChoice,
    about,
    first_model,
    text,
)
from ddpm_demo.ui.components.hub_entry import build_hub_entry
from ddpm_demo.ui.components.links import Links, Part
from ddpm_demo.ui.components.pad import SOURCE, build_pad
from ddpm_demo.ui.generate import link
from ddpm_demo.ui.generate.asked import TIMES, Asked
from ddpm_demo.ui.generate.first_run import first_run
from ddpm_demo.ui.generate.pausing_tab import AGAIN, Pausing, build_pausing, connect_pausing
from ddpm_demo.ui.generate.swaps import offered
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.lazy import called, streamed
from ddpm_demo.ui.server.runs import new_visitor, runs

HANDLERS = "ddpm_demo.ui.generate.handlers"
TIMING = "Timing this model…"
SPACING_NAMES = {
    "trailing": "trailing: T, then down evenly",
    "uniform": "uniform: evenly from T to 1",
    "quadratic": "quadratic: more steps near t = 1",
    "leading": "leading: as published models, never T",
    "logsnr": "logsnr: evenly in the log of the signal-to-noise ratio",
    "karras": "karras: as logsnr, with more steps at high noise",
}
VARIANCES = {"beta_tilde": "σ² = β̃ₜ, less noise", "beta": "σ² = βₜ, more noise"}


def _length(model: Facts, best: SampleConfig) -> tuple[gr.Dropdown, gr.Dropdown, gr.Slider]:
    """Time limit, sampler and steps. The time limit chooses the others."""
    time = gr.Dropdown(
        [(words, seconds) for seconds, words in TIMES.items()],
        value=0,
        label="Time limit",
        info="Picks sampler and steps to fit.",
        elem_id="time",
    )
    sampler = controls.sampler_list(best.sampler, "sampler")
    return time, sampler, controls.steps_slider(model, best, "steps")


def _more(model: Facts, best: SampleConfig) -> dict[str, Any]:
    """The other fields of `Asked`, which few change, in a box that is closed at first."""
    T = model.diffusion.T
    with gr.Accordion("More settings", open=False, elem_id="more"):
        spacing = gr.Dropdown(
            [(SPACING_NAMES[k], k) for k in SPACINGS],
            value=best.spacing,
            elem_id="spacing",
            **text("spacing"),
        )
        start = gr.Slider(
            1,
            T,
            best.start or T,
            step=1,
            elem_id="start",
            **text("start"),
        )
        variance = gr.Radio(
            [(words, k) for k, words in VARIANCES.items()],
            value=best.variance,
            elem_id="variance",
            **text("variance"),
        )
        eta = gr.Slider(
            0,
            1,
            best.eta,
            step=0.05,
            elem_id="eta",
            **text("eta"),
        )
        clip = gr.Checkbox(
            best.clip,
            elem_id="clip",
            **text("clip"),
        )
    return {"spacing": spacing, "start": start, "variance": variance, "eta": eta, "clip": clip}


def build_generate_tab(any_repo: bool = False, links: Links | None = None) -> ModelChoice | None:
    """Lay out the tab; call it inside `with gr.Tab(...)`. None: there is no model to choose.

    Args:
        any_repo: visitors may name any repo of the Hub and folders of this disk. Otherwise, they
            have only the listed repos.
        links: the tab's part is added to them.
    """
    first = first_model()
    if first is None:
        gr.Markdown(how_to_get_models())
        return None
    model = facts(first)
    best, own = model.best, gr.State({})
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(
                elem_id="player", step=True, opening=first_run, link="generate", again=AGAIN
            )
            box = build_pausing()
            denoise = _picture()
        with gr.Column(scale=1, min_width=280, elem_classes="settings"):
            with gr.Row(elem_id="act"):
                buttons = controls.RunButtons.build("Generate", "go", "stop", "player")
                pace = controls.line(TIMING, "pace")
            name = gr.Dropdown(available(), value=first, elem_id="model", **controls.MODEL)
            line = gr.Markdown(about(model), elem_id="about-model")
            choice = ModelChoice(name, own)
            labels = controls.class_list(model, best.labels, "label")
            guidance = controls.guidance_slider(
                best.guidance, labels, bool(model.classes), "guidance"
            )
            n = gr.Slider(1, MOST, SampleConfig.n, step=1, label=text("n")["label"], elem_id="n")
            time, sampler, steps = _length(model, best)
            seed = controls.seed_box("seed")
            swap = _swap(first)
            rest = _more(model, best)
            build_hub_entry(choice, any_repo)
    asked = Asked(
        sampler=sampler, steps=steps, n=n, seed=seed, labels=labels, guidance=guidance, **rest
    )
    run = _connect_runs(choice, asked, buttons, box, denoise, screen)
    shown = [line, sampler, steps, asked.spacing, asked.variance, asked.clip, asked.start]
    shown += [labels, guidance, n]
    held = _connect_controls(choice, asked, pace, time, shown, run)
    read = [name, *shown, seed, asked.eta, box.first[1], held]
    _connect_swap(choice, asked, swap, read)
    _add_link(links or Links(), choice, asked, read)
    return choice


def _connect_controls(
    choice: ModelChoice,
    asked: Asked,
    pace: gr.HTML,
    time: gr.Dropdown,
    shown: list[Any],
    run: Any,
) -> gr.State:
    """Connect what a model and each setting change.

    Args:
        run: the event of a run. After it, the time is known better.

    Returns:
        the name of the model that the controls were last set for.
    """
    held = gr.State(first_model())
    timed, fitted = _connect_settings(choice, asked, pace, time)
    chosen = _connect_model(choice, pace, asked, [*shown, held])
    chosen.then(*timed, **QUICK).then(*fitted, **QUICK)
    run.then(*timed, **QUICK)
    return held


def _add_link(links: Links, choice: ModelChoice, asked: Asked, read: list[Any]) -> None:
    """Add the tab's part of a link.

    Args:
        read: as `link.read` returns their values.
    """
    texts = read[-2]
    changes = [control.change for control in (choice.name, *asked.all(), texts)]
    part = Part("generate", link.NAMES, link.read, read, go="go")
    inputs = [choice.own, choice.name, *asked.all(), texts]
    links.add(part, changes, called(f"{HANDLERS}:query"), inputs=inputs)


def _swap(model: str) -> gr.Dropdown:
    """The usual experiments."""
    return gr.Dropdown(
        offered(model),
        value=None,
        label="Swap one setting",
        info="Keeps this run, and makes the next one beside it.",
        elem_id="swap",
    )


def _swaps(name: Any) -> Any:
    """The swaps that the chosen model can have."""
    return gr.update(choices=offered(name))


def _connect_swap(choice: ModelChoice, asked: Asked, swap: gr.Dropdown, read: list[Any]) -> None:
    """Keep the run, change a setting, and begin the next run.

    Args:
        read: as `link.read` returns their values.
    """
    controls.answer([choice.name.change], _swaps, choice.name, swap)
    keep = "() => { document.querySelector('#player [data-part=keep]')?.click(); }"
    again = "() => { document.getElementById('go')?.click(); return null; }"
    inputs = [choice.own, swap, choice.name, *asked.all()]
    # Not `input`, which also comes when the focus leaves the list.
    kept = swap.select(None, js=keep, **QUIET)
    done = kept.then(streamed(f"{HANDLERS}:swap"), inputs, read, **QUIET)
    done.success(None, outputs=swap, js=again, **QUIET)


def _picture() -> gr.Button:
    """A box, closed at first, with a pad for a picture that a run begins with."""
    with gr.Accordion("From a picture", open=False, elem_id="from-picture"):
        gr.Markdown(
            "Draw or open a picture. It is resized to the model, noised to *t*, and denoised: "
            "from a low *t* it stays what it is, and from a high one the model makes it its own "
            "(SDEdit, Meng et al. 2022). Several *t* give a row."
        )
        build_pad("pad")
        return gr.Button("Denoise from here", elem_id="denoise", variant="primary")


def _connect_runs(
    choice: ModelChoice,
    asked: Asked,
    buttons: controls.RunButtons,
    box: Pausing,
    denoise: gr.Button,
    screen: gr.HTML,
) -> Any:
    """Connect what begins, continues and ends runs. Returns the event of a run."""
    visitor = gr.State("", delete_callback=runs.leave)
    gr.on(None, new_visitor, None, visitor, **QUICK)
    model = [choice.own, choice.name, *asked.all()]
    events = [_connect_run([visitor, *model, *box.first], buttons, screen)]
    drawn = gr.Textbox("", visible=False)
    inputs = [visitor, choice.own, drawn, *model[1:]]
    events.append(_connect_picture(denoise, inputs, buttons, screen))
    events += [*connect_pausing(box, choice, visitor, buttons, screen)]
    _connect_stop(events, buttons, box, screen)
    return events[0]


def _connect_picture(
    denoise: gr.Button, inputs: list[Any], buttons: controls.RunButtons, screen: gr.HTML
) -> Any:
    """Connect "Denoise from here". Returns its event.

    Args:
        inputs: of the handler; in place of the third, the page sends what is on the pad.
    """
    buttons.begin(screen, denoise)
    names = ", ".join(f"v{k}" for k in range(len(inputs)))
    event = denoise.click(
        streamed(f"{HANDLERS}:from_picture", loading=player.LOADING),
        inputs,
        screen,
        js=f"({names}) => [{names.replace('v2', SOURCE.format('pad'), 1)}]",
        concurrency_id="model",
        concurrency_limit=settings.RUNS,
        **QUIET | player.progress(screen),
    )
    buttons.restore_after(event)
    return event


def _connect_run(inputs: list[Any], buttons: controls.RunButtons, screen: gr.HTML) -> Any:
    """Connect the main button. Returns its event."""
    again = json.dumps({"__type__": "update", "value": "Make new ones"})
    screen.begun(None, None, buttons.go, js=f"() => ({again})", **QUIET)
    buttons.begin(screen)
    event = buttons.go.click(
        streamed(f"{HANDLERS}:run", loading=player.LOADING),
        inputs,
        screen,
        concurrency_id="model",
        concurrency_limit=settings.RUNS,
        **QUIET | player.progress(screen),
    )
    buttons.restore_after(event)
    return event


def _connect_stop(
    events: list[Any], buttons: controls.RunButtons, box: Pausing, screen: gr.HTML
) -> None:
    """Connect what ends a run early."""
    buttons.ending()
    halts = ((buttons.stop, lambda: player.note("Stopped.")), (box.pause, pausing))
    for button, said in halts:
        button.click(said, outputs=screen, cancels=events, queue=False, **QUIET)


def pausing() -> str:
    """What the player is told when Pause is pressed."""
    return player.paused("Paused. Go on from here, or change something first.")


def _connect_settings(
    choice: ModelChoice, asked: Asked, pace: gr.HTML, time: gr.Dropdown
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """How long a run takes, and what fits a time.

    Returns:
        both, for what changes all at once.
    """
    whole = [choice.own, choice.name, *asked.all()]
    timed = (called(f"{HANDLERS}:how_long"), whole, pace)
    fitted = (
        called(f"{HANDLERS}:fit"),
        [choice.own, choice.name, time, *asked.all()],
        [asked.sampler, asked.steps, asked.spacing],
    )
    sizes = (asked.n, asked.labels, asked.guidance)
    controls.answer(None, *timed)
    controls.answer([c.change for c in (time, asked.start, *sizes)], *fitted)
    shorter = "(t) => ({__type__: 'update', maximum: Math.max(2, t)})"
    asked.start.change(None, asked.start, asked.steps, js=shorter, **QUIET)
    for control in (asked.sampler, asked.steps):  # set by hand
        control.input(None, outputs=time, js="() => 0", **QUIET)
    return timed, fitted


def _connect_model(choice: ModelChoice, pace: gr.HTML, asked: Asked, changed: list[Any]) -> Any:
    """What a model changes.

    Args:
        changed: as `handlers.chosen` returns them.

    Returns:
        the event after which all is as the model has it.
    """
    # One after the other. Otherwise, an old answer may come after the right one.
    timing = choice.name.change(None, outputs=pace, js=f"() => {TIMING!r}", **QUIET)
    given = [choice.own, choice.name, asked.n, changed[-1]]
    return timing.then(streamed(f"{HANDLERS}:chosen"), given, changed, **QUIET)
