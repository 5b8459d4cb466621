"""All that defines a run, and how links, files, cards and the command line write it down.

This module doesn't import torch, so a page or a command can use it before a network is loaded.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ddpm_demo.config import SampleConfig, SettingError, number, require, settings
from ddpm_demo.models.facts import Facts, class_words, parse_classes

QUERY_MOST = 4096  # the most characters in a link
SHOWN = 40  # the most characters of a bad value in a message
PROGRAM = "ddpm_demo"
INTERVENTION = re.compile(r"[a-z_]+(=[\w.,:+-]{1,200})?", re.ASCII)
SEVERAL = 8  # the most interventions in a run
LISTS = ("with", "pictures")  # the names of the two lists in a file's metadata


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the pictures of a run. Equal specs make equal pictures.

    Attributes:
        model: a name, a path or a repo, as `load_checkpoint` takes it.
        sample: the sampling settings.
        interventions: changes of the run, each as "name" or "name=value" (`inference.changes`).
        pictures: pictures that the run is given, as text (`inference.given`).
    """

    model: str
    sample: SampleConfig = field(default_factory=SampleConfig)
    interventions: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = len(self.interventions)
        require(given <= SEVERAL, "number of interventions", given, f"up to {SEVERAL}")
        for text in self.interventions:
            ok = INTERVENTION.fullmatch(text)
            require(bool(ok), "intervention", text[:SHOWN], "a name, or NAME=VALUE")

    def to_query(self, model: Facts) -> str:
        """Write the run as the query of a link, such as "model=cifar10&class=ship&seed=7".

        Links can't hold pictures. If the run is given pictures, the link has no interventions,
        because these may need the pictures.

        Args:
            model: the run's model. The link leaves out the model's default settings.
        """
        pairs = [("model", self.model)]
        for name, value in self._changes(model).items():
            word = model.class_words(value) if name == "labels" else _text(value)
            pairs.append((_option(name), word))
        if self.interventions and not self.pictures:
            pairs.append(("with", ";".join(self.interventions)))
        return urlencode(pairs)

    @classmethod
    def from_query(
        cls,
        query: str,
        find: Callable[[str], Facts],
        model: str,
        *,
        page: Collection[str] = (),
    ) -> tuple[RunSpec, list[str]]:
        """Read the run that a link asks for, and a sentence about each part that can't be used.

        Anybody may have written the link, so each part is checked. The run leaves out bad parts.

        Args:
            find: returns the model of a name; raises ValueError or OSError if there is none.
            model: the name of the model to use if the link names none, or one that isn't there.
            page: other names that a link may hold; the page reads these itself.
        """
        asked, problems = parts(query)
        name, known = model, None
        if wanted := asked.pop("model", ""):
            try:
                name, known = wanted, find(wanted)
            except (ValueError, OSError):
                name = model
                problems.append(f"There is no model {shortened(wanted)!r} here.")
        known = known or find(model)
        config, options = known.best, {_option(k): k for k in settings(SampleConfig)}
        interventions: tuple[str, ...] = ()
        for key, text in asked.items():
            try:
                if key == "with":
                    interventions = cls(name, interventions=tuple(text.split(";"))).interventions
                elif key in options:
                    config = _changed(config, options[key], text, known)
                elif key not in page:
                    problems.append(f"Nothing is called {shortened(key)!r}.")
            except ValueError as error:
                long = len(text) > SHOWN
                said = f"{key} can't be {shortened(text)!r}."
                problems.append(said if long else str(error))
        most = config.start or known.diffusion.T
        try:
            if config.timesteps is None:
                number("steps", config.steps, 1, most, whole=True)
        except ValueError as error:
            problems.append(str(error))
            config = dataclasses.replace(config, steps=min(known.best.steps, most))
        return cls(name, config, interventions), problems

    def to_metadata(self, classes: Sequence[str] = ()) -> dict[str, str]:
        """The metadata of a file made from the run. It is enough to make the file again.

        Args:
            classes: the model's class names, to write names instead of numbers.
        """
        about = {"program": PROGRAM, "model": self.model}
        for key, value in dataclasses.asdict(self.sample).items():
            if value is not None or key != "timesteps":
                named = key == "labels" and classes
                about[_option(key)] = class_words(value, classes) if named else _text(value)
        lists = zip(LISTS, (self.interventions, self.pictures), strict=True)
        return about | {name: ";".join(texts) for name, texts in lists if texts}

    @classmethod
    def from_metadata(cls, about: Mapping[str, str], classes: Sequence[str] = ()) -> RunSpec:
        """Read the run that a file was made from.

        Args:
            classes: the model's class names, for files that name classes.

        Raises:
            ValueError: this program didn't make the file, or a value in it is not allowed.
        """
        require(about.get("program") == PROGRAM, "program", about.get("program"), PROGRAM)
        values: dict[str, Any] = {}
        for name in settings(SampleConfig):
            text = about.get(_option(name), about.get("label") if name == "labels" else None)
            if text is not None:  # older files call it "label"
                named = name == "labels" and classes and text != "None"
                values[name] = parse_classes(text, classes) if named else _value(name, text)
        lists = [tuple(filter(None, about.get(name, "").split(";"))) for name in LISTS]
        return cls(about.get("model", ""), SampleConfig(**values), *lists)

    def to_command(self, model: Facts, out: str = "samples.png") -> str:
        """The command line that makes the run's pictures.

        Args:
            model: as in `to_query`.

        Raises:
            ValueError: the run has interventions; the command line has no options for them.
        """
        require(not self.interventions, "interventions", self.interventions, "none in a command")
        words = ["python", "-m", "ddpm_demo", "sample", "--model", self.model]
        for name, value in self._changes(model, SampleConfig(labels=None)).items():
            option = _option(name).replace("_", "-")
            if value is None and name != "labels":  # the command line's word for None
                value = {"start": model.diffusion.T, "timesteps": "none"}[name]
            dashed = f"--{option}" if len(option) > 1 else f"-{option}"
            if isinstance(value, bool):
                words.append(dashed if value else f"--no-{option}")
            else:
                word = model.class_words(value) if name == "labels" else _text(value)
                words += [dashed, word]
        return shlex.join([*words, "--out", out])

    def _changes(self, model: Facts, usual: SampleConfig | None = None) -> dict[str, Any]:
        """The settings that differ from the model's own. n and seed are compared with `usual`."""
        own = model.best
        if usual:
            own = dataclasses.replace(own, n=usual.n, seed=usual.seed)
        mine = {name: getattr(self.sample, name) for name in settings(SampleConfig)}
        if not model.guided:
            mine["guidance"] = own.guidance  # its slider is hidden, and its value has no effect
        return {name: value for name, value in mine.items() if value != getattr(own, name)}


def query_names() -> list[str]:
    """All names that `to_query` may write."""
    return ["model", *map(_option, settings(SampleConfig)), "with"]


def parts(query: str) -> tuple[dict[str, str], list[str]]:
    """Read names and values of a query, and problems with it. The last of equal names counts."""
    if len(query) > QUERY_MOST:
        return {}, [f"The link has more than {QUERY_MOST:,} characters, so nothing of it is used."]
    try:
        pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}, ["The link has more than 100 parts, so nothing of it is used."]
    return dict(pairs), []


def _changed(config: SampleConfig, name: str, text: str, model: Facts) -> SampleConfig:
    """Set one setting of `config` to a visitor's text, and check it against the model.

    Raises:
        ValueError: the value isn't allowed.
    """
    if name == "labels":
        return dataclasses.replace(config, labels=model.parse_classes(text))
    config = config.but(**{name: _value(name, text)})
    if name == "guidance":
        model.require_guided(config.guidance)
    for key, t in (("start", config.start), ("timesteps", (config.timesteps or [None])[0])):
        if t is not None:
            number(key, t, 1, model.diffusion.T, whole=True)
    return config


def _value(name: str, text: str) -> Any:
    """Read a text as the type of the setting.

    Raises:
        ValueError: it can't be read as that type.
    """
    described, _ = settings(SampleConfig)[name]
    kind, _, optional = str(described.type).partition(" |")
    if optional and text == "None":
        return None
    if kind == "bool":
        require(text in ("True", "False"), name, text, "True or False")
        return text == "True"
    try:
        if kind.startswith("tuple"):
            return tuple(int(part) for part in text.split(","))
        return {"int": int, "float": float}.get(kind, str)(text)
    except ValueError:
        raise SettingError(name, shortened(text), "a number") from None


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _option(name: str) -> str:
    return settings(SampleConfig)[name][1].option or name


def shortened(text: str) -> str:
    """A bad value, cut to the length that a message shows."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
