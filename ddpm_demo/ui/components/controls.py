"""Controls that several tabs have, such as the choice of a model, and the buttons of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ddpm_demo.config import SAMPLERS, SEED_MAX, SampleConfig, one_of, settings
from ddpm_demo.models.facts import ANY, EACH, Facts
from ddpm_demo.models.zoo import available

if TYPE_CHECKING:
    from ddpm_demo.models.checkpoint import Checkpoint

HERE = Path(__file__).parent
# At each event, the page renews the progress of every component that ever had one. Here none has.
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
}
QUICK: dict[str, Any] = {**QUIET, "queue": False, "trigger_mode": "always_last"}
DICE = f"() => Math.floor(Math.random() * {SEED_MAX})"
GUIDANCE_MOST = 8

# Several classes can be chosen together, but "each" and "any" stand alone.
ALONE = """(words) => {
  const last = words.at(-1), alone = ["each", "any"];
  if (!words.length) return [["any"]];
  return [alone.includes(last) ? [last] : words.filter((word) => !alone.includes(word))];
}"""


MODEL: dict[str, Any] = {"label": "Model", "info": "The network and the data it learned from."}


def answer(
    triggers: Sequence[Any] | None, fn: Any, inputs: Any, outputs: Any, **options: Any
) -> None:
    """Answer events at once. While an answer is on its way, only the last event is kept.

    When Gradio comes to a kept event, it sends it to all that listen. So two slow listeners of one
    event can wake each other forever. Here each is woken alone, by a first step without work.

    Args:
        triggers: None means a change of any input, and a new page.
    """
    heard = gr.on(triggers, None, None if triggers else inputs, js="() => []", **QUIET)
    heard.then(fn, inputs, outputs, **QUICK | options)


def text(name: str, cls: type = SampleConfig) -> dict[str, Any]:
    """Label and sentence of the control of a setting, as options of a component."""
    about = settings(cls)[name][1]
    return {"label": about.label, "info": about.sentence}


# --- classes --------------------------------------------------------------------------------------


def class_options(facts: Facts, labels: tuple[int, ...] | None) -> dict[str, Any]:
    """What the list of classes offers for a model, as options of the component."""
    classes = facts.classes
    names = [(name, facts.class_words((k,))) for k, name in enumerate(classes)]
    each = [("each in turn", EACH)] if len(classes) > 1 else []
    return {
        "choices": [*each, *names, ("any (no class)", ANY)],
        "value": facts.class_words(labels).split(",") if classes else [ANY],
        "visible": bool(classes),
    }


def class_list(facts: Facts, labels: tuple[int, ...] | None, elem_id: str) -> gr.Dropdown:
    """A list of classes, of which several can be chosen."""
    options = class_options(facts, labels)
    options["allow_custom_value"] = True  # a class of another model is checked by us
    control = gr.Dropdown(multiselect=True, elem_id=elem_id, **text("labels"), **options)
    control.input(None, control, control, js=ALONE, **QUIET)
    return control


def words_of(chosen: Any) -> str:
    """Turn the choice in a list of classes into words for `parse_classes`."""
    return ",".join(map(str, chosen)) if isinstance(chosen, list) and chosen else str(chosen)


def guidance_slider(value: float, chosen: gr.Dropdown, visible: bool, elem_id: str) -> gr.Slider:
    """How strictly to follow the class. It can't be moved if no class is chosen."""
    control = gr.Slider(
        0,
        GUIDANCE_MOST,
        value=value,
        step=0.5,
        visible=visible,
        elem_id=elem_id,
        **text("guidance"),
    )
    js = "(words) => ({__type__: 'update', interactive: !words.includes('any')})"
    chosen.change(None, chosen, control, js=js, **QUIET)
    return control


# --- sampler and seed -----------------------------------------------------------------------------


def sampler_list(value: str, elem_id: str) -> gr.Dropdown:
    """The samplers, with what the chosen one does."""
    choices = [(row.label, row.name) for row in SAMPLERS.values()]
    does = {row.name: f"The rule for the next step. {row.does}" for row in SAMPLERS.values()}
    label = text("sampler")["label"]
    control = gr.Dropdown(choices, value=value, label=label, info=does[value], elem_id=elem_id)
    js = f"(name) => ({{__type__: 'update', info: ({json.dumps(does)})[name]}})"
    control.change(None, control, control, js=js, **QUIET)
    return control


def steps_slider(facts: Facts, best: SampleConfig, elem_id: str) -> gr.Slider:
    most = best.start or facts.diffusion.T
    return gr.Slider(1, most, value=best.steps, step=1, elem_id=elem_id, **text("steps"))


def seed_box(elem_id: str) -> gr.Number:
    """A number with a button that draws another one."""
    with gr.Row(elem_classes="seed"):
        value = SampleConfig.seed
        box = gr.Number(value, precision=0, elem_id=elem_id, scale=3, min_width=120, **text("seed"))
        dice = gr.Button("New seed", size="md", elem_id="dice", scale=1, min_width=90)
    dice.click(None, outputs=box, js=DICE, **QUIET)
    return box


# --- lines and buttons ----------------------------------------------------------------------------


def line(value: str, elem_id: str, **options: Any) -> gr.HTML:
    """A line below buttons. It changes while something runs, and screen readers read it out."""
    script = (HERE / "line.js").read_text(encoding="utf-8")
    style = (HERE / "controls.css").read_text(encoding="utf-8")
    usual: dict[str, Any] = {"elem_id": elem_id, "min_width": 240, "padding": False}
    return gr.HTML(value, js_on_load=script, head=f"<style>{style}</style>", **usual | options)


def reasons(why: Mapping[str, str]) -> None:
    """Say why a button can't be pressed, in its title.

    Args:
        why: a sentence for each button that may be disabled, by its id.
    """
    script = (HERE / "reasons.js").read_text(encoding="utf-8")
    gr.HTML("", js_on_load=script, why=dict(why), elem_classes="unseen", padding=False)


@dataclass(frozen=True)
class RunButtons:
    """A main button that is replaced by Stop while a run is on.

    Attributes:
        go: begins a run.
        stop: ends it.
        screen: the id of the player, which is scrolled into view.
    """

    go: gr.Button
    stop: gr.Button
    screen: str

    @classmethod
    def build(cls, words: str, go: str, stop: str, screen: str) -> RunButtons:
        """Lay them out.

        Args:
            words: on the main button.
            go, stop: their ids.
        """
        main = gr.Button(words, variant="primary", size="lg", elem_id=go, min_width=120)
        halt = gr.Button("Stop", size="lg", elem_id=stop, min_width=80, visible="hidden")
        return cls(main, halt, screen)

    @property
    def both(self) -> list[gr.Button]:
        return [self.go, self.stop]

    def begin(
        self, player: gr.HTML, pressed: gr.Button | None = None, hide: Sequence[gr.Button] = ()
    ) -> None:
        """When the button is pressed, show Stop instead of it, and tell the player.

        Args:
            pressed: the button that begins a run. The default is the main button.
            hide: buttons to hide during a run.
        """
        hidden = _update(visible="hidden")
        js = f"""() => {{
          const note = JSON.stringify({{note: "Starting…", at: Date.now()}});
          const screen = document.querySelector("body:not([data-lesson]) #{self.screen}");
          screen?.scrollIntoView({{block: "nearest"}}); // a lesson shows its card, too
          setTimeout(() => document.getElementById({self.stop.elem_id!r})?.focus(), 100);
          return [{hidden}, {_update(**STOP)}, note{f", {hidden}" * len(hide)}];
        }}"""
        changed = [*self.both, player, *hide]
        (pressed or self.go).click(None, None, changed, js=js, **QUIET)

    def ending(self, words: str = "Stopping…") -> None:
        """When Stop is pressed, say so on the button."""
        js = f"() => ({_update(value=words, interactive=False)})"
        self.stop.click(None, None, self.stop, js=js, **QUIET)

    def restore_after(self, event: Any, stopped: Mapping[Any, str] | None = None) -> None:
        """Show the main button again when the run is over, however it ended.

        After Stop, that is after the current step. Until then, Gradio ignores a press.

        Args:
            stopped: what components say after Stop. If they said it earlier, the current step could
                still change them.
        """
        words = stopped or {}
        back = f"{_update(visible=True)}, {_update(visible='hidden')}"
        js = f"""() => {{
          const stop = document.getElementById({self.stop.elem_id!r});
          const stopped = stop.textContent.trim() !== {STOP["value"]!r};
          const said = {json.dumps(list(words.values()))};
          return [{back}, ...said.map((text) => (stopped ? text : {_update()}))];
        }}"""
        for after in (event.then, event.failure):  # Gradio's `then` does not follow an error
            after(None, None, [*self.both, *words], js=js, **QUIET)


STOP: dict[str, Any] = {"visible": True, "value": "Stop", "interactive": True}


def _update(**changes: Any) -> str:
    """An update of a component, in JavaScript."""
    return json.dumps({"__type__": "update", **changes})


# --- the model ------------------------------------------------------------------------------------

FIRST = "cifar10"  # the one that the app starts with
MOST = 64  # the most pictures in one run of the app
PIXELS = 2**20  # the most pixels; a network's activations take a few hundred times their memory
CAVEATS = {"mnist": "About one digit in ten fails."}  # its card has the numbers


@dataclass(frozen=True)
class ModelChoice:
    """The list of models in Generate. Others add models to it.

    `own` holds the visitor's own models: for each name in the list, the file, folder or repo id
    that `load_checkpoint` takes.
    """

    name: gr.Dropdown
    own: gr.State

    def add(self, own: Mapping[str, str], name: str, source: str) -> dict[Any, Any]:
        """Updates of `name` and `own` that add a model and choose it."""
        own = {**own, name: source}
        return {self.own: own, self.name: gr.update(choices=[*available(), *own], value=name)}

    def follow(self, other: gr.Dropdown) -> None:
        """Keep another tab's list of models as long as this one."""

        def longer(own: Mapping[str, str]) -> Any:
            return gr.update(choices=[*available(), *own])

        answer([self.own.change], longer, self.own, other)


@dataclass(frozen=True)
class Selected:
    """The model that a visitor chose.

    Attributes:
        name: as it is called in the list.
        source: what `runtime.model` takes for it.
        checkpoint: the model.
    """

    name: str
    source: str
    checkpoint: Checkpoint

    @property
    def best(self) -> SampleConfig:
        """The model's own sampling settings."""
        return self.checkpoint.best

    @property
    def facts(self) -> Facts:
        return self.checkpoint.facts


def find(name: Any, own: Mapping[str, str]) -> Selected:
    """Load the model that a visitor chose.

    Raises:
        ValueError: it is neither a shipped one nor the visitor's own.
    """
    from ddpm_demo.ui.server import runtime

    one_of("model", name, (*available(), *own))
    source = own.get(name, name)
    return Selected(name, source, runtime.model(source))


def first_model() -> str | None:
    """The model that the app starts with."""
    names = available()
    return FIRST if FIRST in names else next(iter(names), None)


def about(facts: Facts) -> str:
    """One line on a model, in Markdown."""
    config, process = facts.config, facts.diffusion
    parts = [
        f"{config.size} × {config.size} {'grey' if config.channels == 1 else 'colour'}",
        f"{facts.parameters / 1e6:.1f} M parameters",
        f"T = {process.T:,}",
        "" if process.noise == "gaussian" else f"{process.noise.capitalize()} noise",
        _learned(facts),
    ]
    # Lines break between the parts only.
    said = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)
    caveat = CAVEATS.get(facts.name)
    return f"{said}. {caveat}" if caveat else said


def _learned(facts: Facts) -> str:
    seen, base = facts.info.get("images"), facts.info.get("base") or facts.info.get("init")
    if not seen:
        return ""
    base = "an earlier version" if base == facts.name else base
    only = (facts.info.get("train") or {}).get("only")
    words = f"{seen:,}" if seen < 10**6 else f"{seen / 1e6:.2g} M"
    what = "trajectories" if "teacher" in facts.info else "pictures"
    return f"{base} + {words} {only or 'more'} {what}" if base else f"saw {words} {what}"


def most_pictures(facts: Facts) -> int:
    """How many pictures a run of the app can have: fewer if they are large."""
    return max(1, min(MOST, PIXELS // facts.config.size**2))
