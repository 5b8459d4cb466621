"""The tab "Generate": pictures come out of noise, step by step."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ddpm_demo.config import SAMPLER_NAMES, SEED_MAX, SPACINGS, SampleConfig, number, one_of
from ddpm_demo.inference import timing as budget
from ddpm_demo.inference.generate import defaults, generate, metadata
from ddpm_demo.inference.labels import ANY, EACH, class_words, parse_classes
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.zoo import available
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.hub_entry import build_hub_entry
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runtime import GPU, friendly, model

MOST = 64  # pictures in one run of the app,
PIXELS = 2**20  # and pixels: a network's activations take a few hundred times their memory
DEFAULT = SampleConfig()

DICE = f"() => Math.floor(Math.random() * {SEED_MAX})"

# What the controls say, in words and with the symbol of the paper.
SAMPLERS = {
    "ddpm": "DDPM (ancestral)",
    "ddim": "DDIM",
    "dpmpp_2m": "DPM-Solver++ (2M)",
    "dpmpp_2m_sde": "SDE-DPM-Solver++ (2M)",
    "heun": "Heun (EDM)",
    "unipc": "UniPC",
}
SPACING_NAMES = {
    "trailing": "trailing: T, then down evenly",
    "uniform": "uniform: evenly from T to 1",
    "quadratic": "quadratic: more steps near t = 1",
    "leading": "leading: as published models, never T",
    "logsnr": "logsnr: evenly in the log of the signal-to-noise ratio",
    "karras": "karras: as logsnr, with more steps at high noise",
}
TIMING = "Timing this model …"
TIMES = {0: "by steps", 2: "about 2 s", 5: "about 5 s", 15: "about 15 s", 60: "about 60 s"}
VARIANCES = {"beta_tilde": "σ² = β̃ₜ (posterior)", "beta": "σ² = βₜ"}


def about(checkpoint: Checkpoint) -> str:
    """One line on a model, in Markdown."""
    config, process = checkpoint.model.config, checkpoint.diffusion
    parameters = checkpoint.parameters / 1e6
    seen = checkpoint.info.get("images")
    parts = [
        f"{config.size} × {config.size} {'grey' if config.channels == 1 else 'RGB'}",
        f"{parameters:.1f} M parameters",
        f"{process.schedule} schedule, T = {process.T}",
        f"{process.noise.capitalize()} noise",
        f"trained on {seen:,} pictures" if seen else "",
    ]
    # Lines break between the parts only.
    return " · ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)


def most_pictures(checkpoint: Checkpoint) -> int:
    """How many pictures a run of the app can have: fewer if they are large."""
    return max(1, min(MOST, PIXELS // checkpoint.model.config.size**2))


def class_choices(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """What the list of classes offers, each with the words that `parse_classes` reads."""
    classes = checkpoint.classes
    each = [("each in turn", EACH)] if classes else []
    names = [(name, class_words((k,), classes)) for k, name in enumerate(classes)]
    return [*each, *(names if len(classes) > 1 else ()), ("any (no class)", ANY)]


def sample_config(
    checkpoint: Checkpoint,
    sampler: Any,
    steps: Any,
    n: Any,
    seed: Any,
    spacing: Any,
    variance: Any,
    eta: Any,
    clip: Any,
    label: Any = ANY,
    guidance: Any = 1.0,
    start: Any = None,
) -> SampleConfig:
    """The run that the controls, or a raw API call, ask for.

    Raises:
        ValueError: a value that the app doesn't allow.
    """
    number("n", n, 1, most_pictures(checkpoint), whole=True)
    best, T = defaults(checkpoint), checkpoint.diffusion.T
    as_best = (steps, spacing, start or T) == (best.steps, best.spacing, best.start or T)
    return SampleConfig(
        sampler,
        steps,
        n,
        seed,
        spacing,
        variance,
        eta,
        bool(clip),
        parse_classes(str(label), checkpoint.classes),
        guidance,
        start,
        best.timesteps if as_best else None,
    )


@dataclass(frozen=True)
class ModelChoice:
    """The model choice of the tab, for tabs that add to it: what this visitor has besides the zoo.

    `own` holds, by the name shown, what `load_checkpoint` takes: a file, a folder, a repo id.
    """

    name: gr.Dropdown
    own: gr.State

    def add(self, own: Mapping[str, str], name: str, source: str) -> dict[Any, Any]:
        """Updates of `name` and `own` that add a model and choose it."""
        own = {**own, name: source}
        return {self.own: own, self.name: gr.update(choices=[*available(), *own], value=name)}


def find(name: Any, own: Mapping[str, str]) -> Checkpoint:
    """The model that a visitor chose.

    Raises:
        ValueError: it is neither in the zoo nor the visitor's own.
    """
    one_of("model", name, (*available(), *own))
    return model(own.get(name, name))


def most_seconds() -> float:
    """What one run may take: there is no limit for the host of the app alone."""
    return runtime.most_seconds(runtime.RUN_MINUTES, 5 if runtime.strangers else math.inf)


def _seconds_per_call(own: Mapping[str, str], name: Any, config: SampleConfig) -> float:
    find(name, own)
    return budget.per_call(runtime.seconds(own.get(name, name)), budget.pictures(config))


def how_long(
    own: Mapping[str, str],
    name: Any,
    sampler: Any,
    steps: Any,
    n: Any,
    label: Any,
    guidance: Any,
) -> str:
    """The line beside the button; nothing if there is no such run."""
    try:
        y = None if label == ANY else (0,)
        config = SampleConfig(sampler, steps, n, labels=y, guidance=guidance)
        seconds = _seconds_per_call(own, name, config) * budget.calls(sampler, steps)
        most = most_seconds()
    except (ValueError, OSError, FloatingPointError, gr.Error):
        return ""
    if seconds > most:
        return f"about {budget.spoken(seconds)}, and {budget.spoken(most)} is the most here"
    counted = (f"{k} {word}{'s' * (k > 1)}" for k, word in ((steps, "step"), (n, "picture")))
    return f"about {budget.spoken(seconds)} for {' of '.join(counted)}"


def fit(
    own: Mapping[str, str], name: Any, seconds: Any, n: Any, label: Any, guidance: Any, start: Any
) -> Any:
    """The sampler and the steps for the time that was picked; as they are if there is none."""
    try:
        checkpoint = find(name, own)
        number("start", start, 1, checkpoint.diffusion.T, whole=True)
        y = None if label == ANY else (0,)
        config = SampleConfig(n=n, labels=y, guidance=guidance)
        if isinstance(seconds, int) and TIMES.get(seconds) and seconds > 0:
            ms = 1000 * _seconds_per_call(own, name, config)
            return budget.plan(seconds, ms, start, defaults(checkpoint))
    except (ValueError, OSError, FloatingPointError, gr.Error):
        pass
    return gr.skip(), gr.skip()


@GPU
@friendly
def run(own: Mapping[str, str], name: Any, *controls: Any) -> Iterator[Any]:
    """Stream a run to the player."""
    checkpoint = find(name, own)
    config = sample_config(checkpoint, *controls)
    most = most_seconds()
    if most < math.inf and not os.environ.get("SPACES_ZERO_GPU"):  # that has a limit of its own
        calls = budget.calls(config.sampler, config.steps)
        seconds = calls * _seconds_per_call(own, name, config)
        if seconds > most:
            raise ValueError(
                f"This run would take about {budget.spoken(seconds)}; allowed here is up to "
                f"{budget.spoken(most)}: take fewer steps or pictures."
            )
    title = f"{name} · {SAMPLERS[config.sampler]}, {config.steps} steps, seed {config.seed}"
    steps = generate(checkpoint, config, bf16=runtime.bf16(), denoiser=runtime.denoiser)
    sparing = not runtime.has_gpu()  # on a CPU, messages take their time from the network
    meta = metadata(name, config)
    yield from player.stream(steps, title=title, meta=meta, sparing=sparing)


@friendly
def _chosen(own: Mapping[str, str], name: str, n: Any) -> Iterator[Any]:
    """What changes with the model: its line, how it is best sampled, how many pictures there can
    be, and whether it has classes."""
    checkpoint = find(name, own)
    classes, best, T = checkpoint.classes, defaults(checkpoint), checkpoint.diffusion.T
    most = most_pictures(checkpoint)
    yield (
        about(checkpoint),
        best.sampler,
        gr.update(maximum=best.start or T, value=best.steps),
        best.spacing,
        best.variance,
        best.clip,
        gr.update(maximum=T, value=best.start or T),
        gr.update(
            choices=class_choices(checkpoint),
            value=class_words(best.labels, classes),
            visible=bool(classes),
        ),
        gr.update(value=best.guidance, visible=bool(classes)),
        gr.update(maximum=most, value=min(n, max(1, most // 4)) if most < MOST else n),
    )


def first_model() -> str | None:
    """The one that the app starts with."""
    names = available()
    return "mnist" if "mnist" in names else next(iter(names), None)


def warm_up() -> None:
    """Run the first model once, as its first run is slower, and see how fast it is here."""
    first = first_model()
    if first and not os.environ.get("SPACES_ZERO_GPU"):  # there, GPUs are for visitors
        runtime.seconds(first)


def build_generate_tab(any_repo: bool = False) -> ModelChoice | None:
    """Lay out the tab; call it inside `with gr.Tab(...)`. None: there is no model to choose.

    Args:
        any_repo: visitors may name repos of the Hub and folders of this disk; else only the listed
            repos are theirs.
    """
    names, first = available(), first_model()
    if first is None:
        gr.Markdown(
            "There is no model in `checkpoints/`: `python -m ddpm_demo train --dataset mnist "
            "--minutes 40 --out checkpoints/mnist` makes one."
        )
        return None
    own = gr.State({})
    T, best = model(first).diffusion.T, defaults(model(first))
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(elem_id="player")
        with gr.Column(scale=1, min_width=280):
            with gr.Row(elem_id="act"):
                go = gr.Button(
                    "Generate", variant="primary", size="lg", elem_id="go", min_width=120
                )
                stop = gr.Button("Stop", size="lg", elem_id="stop", min_width=80)
                pace = gr.HTML(TIMING, elem_id="pace", min_width=240, padding=False)
            name = gr.Dropdown(
                names,
                value=first,
                label="Model",
                info="ε_θ: the network that predicts the noise, and what it was trained on.",
                elem_id="model",
            )
            line = gr.Markdown(about(model(first)), elem_id="about-model")
            choice = ModelChoice(name, own)
            build_hub_entry(choice, any_repo)
            label = gr.Dropdown(
                class_choices(model(first)),
                value=class_words(best.labels, model(first).classes),
                visible=bool(model(first).classes),
                label="Class",
                info="y: what to draw. With “any”, the model decides, and guidance does nothing.",
                elem_id="label",
            )
            guidance = gr.Slider(
                0,
                8,
                value=best.guidance,
                step=0.5,
                visible=bool(model(first).classes),
                label="Guidance",
                info="w: how strongly the class is insisted on; 1 is plain conditioning.",
                elem_id="guidance",
            )
            n = gr.Slider(
                1, MOST, DEFAULT.n, step=1, label="Pictures", info="How many.", elem_id="n"
            )
            time = gr.Dropdown(
                [(text, seconds) for seconds, text in TIMES.items()],
                value=0,
                label="Time",
                info="Chooses sampler and steps by the speed of this machine.",
                elem_id="time",
            )
            sampler = gr.Dropdown(
                [(SAMPLERS[k], k) for k in SAMPLER_NAMES],
                value=best.sampler,
                label="Sampler",
                info="How x_s follows from x_t: DDPM adds fresh noise, DDIM goes straight.",
                elem_id="sampler",
            )
            steps = gr.Slider(
                1,
                best.start or T,
                value=best.steps,
                step=1,
                label="Steps",
                info="How many of the T steps to take: more is slower and finer.",
                elem_id="steps",
            )
            with gr.Row():
                seed = gr.Number(
                    DEFAULT.seed,
                    precision=0,
                    label="Seed",
                    info="x_T: picture k has the seed + k.",
                    elem_id="seed",
                    scale=3,
                    min_width=120,
                )
                dice = gr.Button("New seed", size="sm", elem_id="dice", scale=1, min_width=90)
            with gr.Accordion("More settings", open=False, elem_id="more"):
                spacing = gr.Dropdown(
                    [(SPACING_NAMES[k], k) for k in SPACINGS],
                    value=best.spacing,
                    label="Timestep spacing",
                    info="τ: which of the T steps are taken.",
                    elem_id="spacing",
                )
                start = gr.Slider(
                    1,
                    T,
                    best.start or T,
                    step=1,
                    label="Start",
                    info="t of x_T: T is the whole way; some models do better a little below.",
                    elem_id="start",
                )
                variance = gr.Radio(
                    [(v, k) for k, v in VARIANCES.items()],
                    value=best.variance,
                    label="Variance (DDPM)",
                    info="σₜ²: how much fresh noise a DDPM step adds.",
                    elem_id="variance",
                )
                eta = gr.Slider(
                    0,
                    1,
                    best.eta,
                    step=0.05,
                    label="η (DDIM)",
                    info="0 adds no noise on the way, 1 as much as DDPM.",
                    elem_id="eta",
                )
                clip = gr.Checkbox(
                    best.clip,
                    label="Clip x̂₀",
                    info="Keeps the predicted picture within [−1, 1] at every step.",
                    elem_id="clip",
                )

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    controls = [sampler, steps, n, seed, spacing, variance, eta, clip, label, guidance, start]
    event = go.click(
        run,
        [own, name, *controls],
        screen,
        concurrency_id="model",
        concurrency_limit=runtime.RUNS,
        **quiet | player.PROGRESS,
    )
    stop.click(
        lambda: player.note("Stopped."),
        outputs=screen,
        cancels=[event],
        queue=False,
        **quiet,
    )
    dice.click(None, outputs=seed, js=DICE, **quiet)
    shown = [line, sampler, steps, spacing, variance, clip, start, label, guidance, n]
    start.change(lambda t: gr.update(maximum=max(2, t)), start, steps, **quiet)

    quick: dict[str, Any] = {**quiet, "queue": False, "trigger_mode": "always_last"}
    run_of = [own, name, sampler, steps, n, label, guidance]
    label_words = class_words(best.labels, model(first).classes)
    usual = (first, best.sampler, best.steps, DEFAULT.n, label_words, best.guidance)
    gr.on(None, functools.partial(how_long, {}, *usual), None, pace, **quick)  # of a new page
    timed = (how_long, run_of, pace)
    gr.on([c.change for c in (sampler, steps, n, label, guidance)], *timed, **quick)
    fitted = (fit, [own, name, time, n, label, guidance, start], [sampler, steps])
    gr.on([c.change for c in (time, n, label, guidance, start)], *fitted, **quick)
    # One after the other, or an answer for the last model's settings may come after the right one.
    timing = name.change(None, outputs=pace, js=f"() => {TIMING!r}", **quiet)
    chosen = timing.then(_chosen, [own, name, n], shown, **quiet)
    chosen.then(*timed, **quick).then(*fitted, **quick)
    for control in (sampler, steps):  # set by hand
        control.input(None, outputs=time, js="() => 0", **quiet)
    return choice
