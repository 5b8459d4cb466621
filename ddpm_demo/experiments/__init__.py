"""The experiments. Each answers a question, and has one row.

To add one, write a file with `run` and `cost`, its settings, and a row of `EXPERIMENTS`. The page,
the command line and links read this row. Nothing heavy is imported before an experiment runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ddpm_demo.config import one_of, require, settings
from ddpm_demo.experiments.asked import (
    Between,
    Break,
    Copying,
    Decide,
    Guess,
    Guide,
    Learn,
    Noises,
    Plane,
    Race,
    Recorded,
)

if TYPE_CHECKING:
    from ddpm_demo.experiments.tools import Report, Tools


@dataclass(frozen=True)
class Experiment:
    """A row of `EXPERIMENTS`.

    Attributes:
        name: its name on the command line, in links and in files.
        question: the question that it answers.
        about: what it does, in one or two sentences.
        settings: a dataclass whose fields are each a `config.setting`.
        module: the module with `run(settings, tools)`, which yields a `Report` whenever there is
            more to show, and `cost(settings, per_call)`, which estimates the seconds it takes.
            `per_call(model, n)` gives the seconds of one call of a network with n pictures.
        keeps: the folder for the model that it trains, for "Go on" and for the list of models; ""
            if it trains none.
    """

    name: str
    question: str
    about: str
    settings: type
    module: str
    keeps: str = ""

    def __call__(self, asked: Any, tools: Tools) -> Iterator[Report]:
        """Run the experiment."""
        found: Iterator[Report] = self._module().run(asked, tools)
        return found

    def cost(self, asked: Any, per_call: Callable[[str, int], float]) -> float:
        """Estimate the seconds that it takes."""
        return float(self._module().cost(asked, per_call))

    def _module(self) -> ModuleType:
        return importlib.import_module(f"ddpm_demo.experiments.{self.module}")

    def ask(self, values: Mapping[str, Any]) -> Any:
        """Make its settings from the values of a page, a command or a link. Others get defaults.

        Raises:
            ValueError: a value can't be read, or is not allowed.
        """
        known = settings(self.settings)
        for name in values:
            one_of("setting", name, tuple(known))
        read = {name: _read(name, str(known[name][0].type), v) for name, v in values.items()}
        return self.settings(**read)


def _read(name: str, kind: str, value: Any) -> Any:
    """Read a value as the type of its field. Pages send whole numbers as floats, lists as text."""
    try:
        if kind == "bool" and isinstance(value, str):
            require(value in ("True", "False"), name, value, "True or False")
            return value == "True"
        if kind == "int":
            number = float(value)
            return int(number) if number == int(number) else number
        if kind == "float":
            return float(value)
        if kind.startswith("tuple") and isinstance(value, str):
            return tuple(int(part) for part in value.replace(",", " ").split())
    except (TypeError, ValueError, OverflowError):
        allowed = "whole numbers, separated by commas" if kind.startswith("tuple") else "a number"
        require(False, name, str(value)[:40], allowed)
    return value


EXPERIMENTS: dict[str, Experiment] = {
    row.name: row
    for row in (
        Experiment(
            name="race",
            question="Which sampler needs the fewest calls?",
            about="All samplers start from the same noise and may ask the network equally often.",
            settings=Race,
            module="race",
        ),
        Experiment(
            name="break",
            question="What if …?",
            about="The right run beside one with a well-known bug, from the same seed, and the "
            "line of code that makes the difference.",
            settings=Break,
            module="breaking",
        ),
        Experiment(
            name="guess",
            question="Which one is broken?",
            about="Three runs, and one has a bug. Guess which before you look.",
            settings=Guess,
            module="breaking",
        ),
        Experiment(
            name="decide",
            question="When is it decided?",
            about="One picture of no given class: what a classifier reads in the guess at each t, "
            "and how many of 16 continuations from there end in the same class.",
            settings=Decide,
            module="deciding",
        ),
        Experiment(
            name="guidance",
            question="What does guidance do?",
            about="The network’s answers with a class and without, their difference at each t, "
            "and what a larger or smaller part of it makes of the same noise.",
            settings=Guide,
            module="guiding",
        ),
        Experiment(
            name="learn",
            question="How does it learn?",
            about="A small network learns digits here, from nothing. Stop pauses it; with “Go on” "
            "it goes on, with another learning rate if you like.",
            settings=Learn,
            module="learn",
            keeps="learn",
        ),
        Experiment(
            name="recorded",
            question="How did the shipped models learn?",
            about="What their trainings wrote down: loss, loss by t, and samples on the way where "
            "they were kept. Nothing is computed.",
            settings=Recorded,
            module="recorded_run",
        ),
        Experiment(
            name="copying",
            question="Is it copying?",
            about="For each generated picture the nearest of all training pictures; and a "
            "denoiser that can do nothing but copy.",
            settings=Copying,
            module="copying",
        ),
        Experiment(
            name="noises",
            question="Which noise?",
            about="The forward process with noise that is not Gaussian, and a model that is "
            "sampled with another noise than it was trained with.",
            settings=Noises,
            module="noises",
        ),
        Experiment(
            name="between",
            question="What lies between two noises?",
            about="From one noise to another, the same noise with each class, mixes of two "
            "pictures, and a picture's way up to its noise and back.",
            settings=Between,
            module="between",
        ),
        Experiment(
            name="plane",
            question="How does it look in two dimensions?",
            about="Points instead of pictures, through the same schedule and the same samplers: "
            "with the exact denoiser, and with a small network that learns it here.",
            settings=Plane,
            module="plane",
        ),
    )
}
