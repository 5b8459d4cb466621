"""The model that a visitor chose, which all tabs share: the list, what is said of a model, and the
model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from ddpm_demo.config import SampleConfig
from ddpm_demo.config.setting import one_of
from ddpm_demo.models.facts import Facts
from ddpm_demo.models.zoo import available

if TYPE_CHECKING:
    from ddpm_demo.models.checkpoint import Checkpoint

FIRST = "cifar10"  # the one that the app starts with
MOST = 64  # pictures in one run of the app,
PIXELS = 2**20  # and pixels: a network's activations take a few hundred times their memory
CAVEATS = {"mnist": "About one digit in ten fails."}  # its card has the numbers


@dataclass(frozen=True)
class ModelChoice:
    """The model choice of Generate, for what adds to it.

    `own` holds what this visitor has besides the shipped models: by the name shown, what
    `load_checkpoint` takes: a file, a folder, a repo id.
    """

    name: gr.Dropdown
    own: gr.State

    def add(self, own: Mapping[str, str], name: str, source: str) -> dict[Any, Any]:
        """Updates of `name` and `own` that add a model and choose it."""
        own = {**own, name: source}
        return {self.own: own, self.name: gr.update(choices=[*available(), *own], value=name)}

    def follow(self, other: gr.Dropdown) -> None:
        """Keep another tab's list of models as long as this one."""
        self.own.change(
            lambda own: gr.update(choices=[*available(), *own]),
            self.own,
            other,
            show_progress="hidden",
            api_visibility="private",
        )


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
        """How it is sampled best."""
        return self.checkpoint.best

    @property
    def facts(self) -> Facts:
        return self.checkpoint.facts


def find(name: Any, own: Mapping[str, str]) -> Selected:
    """The model that a visitor chose, loaded.

    Raises:
        ValueError: it is neither a shipped one nor the visitor's own.
    """
    from ddpm_demo.ui.server import runtime

    one_of("model", name, (*available(), *own))
    source = own.get(name, name)
    return Selected(name, source, runtime.model(source))


def first_model() -> str | None:
    """The one that the app starts with."""
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
    seen, base = facts.info.get("images"), facts.info.get("base")
    if not seen:
        return ""
    only = (facts.info.get("train") or {}).get("only")
    words = f"{seen:,}" if seen < 10**6 else f"{seen / 1e6:.2g} M"
    return f"{base} + {words} {only or 'more'} pictures" if base else f"saw {words} pictures"


def most_pictures(facts: Facts) -> int:
    """How many pictures a run of the app can have: fewer if they are large."""
    return max(1, min(MOST, PIXELS // facts.config.size**2))
