"""All that makes a run, and how links, files, cards and the command line write it down.

Torch-free, so that a page or a command can be made of it before a network is loaded.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from ddpm_demo.config import SampleConfig, from_dict
from ddpm_demo.config.setting import number, require, settings
from ddpm_demo.inference.labels import (
    class_words,
    guided,
    own_labels,
    parse_classes,
    require_guided,
)

if TYPE_CHECKING:
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.facts import Facts

QUERY_MOST = 4096  # characters of a link
SHOWN = 40  # characters of a bad value in a message
PROGRAM = "ddpm_demo"
INTERVENTION = re.compile(r"[a-z_]+(=[\w.,:+-]{1,200})?", re.ASCII)
SEVERAL = 8  # interventions in a run
LISTS = ("with", "pictures")  # of texts, in what a file says of itself


def defaults(model: Checkpoint | Facts) -> SampleConfig:
    """How a model is best sampled, as far as its checkpoint says so.

    A model with a list of classes draws them in turn, or the one that it was fine-tuned to.
    """
    said = dict(model.info.get("sample") or {})
    if not {"label", "labels"} & said.keys():
        said["labels"] = own_labels(model)
    return from_dict(SampleConfig, said)


@dataclass(frozen=True)
class RunSpec:
    """A run: everything that has to be the same for the same pictures.

    Attributes:
        model: a name, a path or a repo, as `load_checkpoint` takes it.
        sample: how it is sampled.
        interventions: what changes its steps, each as "name" or "name=value".
        pictures: that it is given, see `inference.given`.
    """

    model: str
    sample: SampleConfig = field(default_factory=SampleConfig)
    interventions: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.interventions) <= SEVERAL, "interventions", "too many", f"{SEVERAL}")
        for text in self.interventions:
            ok = INTERVENTION.fullmatch(text)
            require(bool(ok), "intervention", text[:SHOWN], "a name, or NAME=VALUE")

    def to_query(self, model: Checkpoint | Facts) -> str:
        """The run as the query of a link, such as "model=cifar10&class=ship&seed=7".

        A link holds no pictures, so it has no interventions either where these need some.

        Args:
            model: the run's own; what it does by default is left out.
        """
        pairs = [("model", self.model)]
        for name, value in self._changes(model).items():
            word = class_words(value, model.classes) if name == "labels" else _text(value)
            pairs.append((_option(name), word))
        if self.interventions and not self.pictures:
            pairs.append(("with", ";".join(self.interventions)))
        return urlencode(pairs)

    @classmethod
    def from_query(
        cls,
        query: str,
        find: Callable[[str], Checkpoint | Facts],
        model: str,
        *,
        page: Collection[str] = (),
    ) -> tuple[RunSpec, list[str]]:
        """The run that a link asks for, and a sentence on each part of it that can't be used.

        What can't be used is left out, and the rest counts. Anybody may have written the link.

        Args:
            find: the model of a name; raises ValueError or OSError if there is none.
            model: the name of the model for links that name none, or one that isn't there.
            page: other names that a link may hold: the page reads them itself.
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
        config, options = defaults(known), {_option(k): k for k in settings(SampleConfig)}
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
                said = f"{key} is {shortened(text)!r}, which is not allowed."
                problems.append(said if long else str(error))
        most = config.start or known.diffusion.T
        try:
            if config.timesteps is None:
                number("steps", config.steps, 1, most, whole=True)
        except ValueError as error:
            problems.append(str(error))
            config = dataclasses.replace(config, steps=min(defaults(known).steps, most))
        return cls(name, config, interventions), problems

    def to_metadata(self, classes: Sequence[str] = ()) -> dict[str, str]:
        """What a file made from the run says of itself: enough to make it again.

        Args:
            classes: the model's; classes are then named, and not numbered.
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
        """The run that a file was made from.

        Args:
            classes: the model's, for files that name classes.

        Raises:
            ValueError: the file is not of this program, or says something that is not allowed.
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

    def to_command(self, model: Checkpoint | Facts, out: str = "samples.png") -> str:
        """The command line that makes the run's pictures.

        Args:
            model: as in `to_query`.

        Raises:
            ValueError: the run has interventions, for which there are no options.
        """
        require(not self.interventions, "interventions", self.interventions, "none in a command")
        words = ["python", "-m", "ddpm_demo", "sample", "--model", self.model]
        for name, value in self._changes(model, SampleConfig(labels=None)).items():
            option = _option(name).replace("_", "-")
            if value is None and name != "labels":  # the words for it
                value = {"start": model.diffusion.T, "timesteps": "none"}[name]
            dashed = f"--{option}" if len(option) > 1 else f"-{option}"
            if isinstance(value, bool):
                words.append(dashed if value else f"--no-{option}")
            else:
                word = class_words(value, model.classes) if name == "labels" else _text(value)
                words += [dashed, word]
        return shlex.join([*words, "--out", out])

    def _changes(
        self, model: Checkpoint | Facts, usual: SampleConfig | None = None
    ) -> dict[str, Any]:
        """The settings that differ from the model's own, and of n and seed from `usual`'s."""
        own = defaults(model)
        if usual:
            own = dataclasses.replace(own, n=usual.n, seed=usual.seed)
        mine = {name: getattr(self.sample, name) for name in settings(SampleConfig)}
        if not guided(model):
            mine["guidance"] = own.guidance  # a hidden slider's, which does nothing
        return {name: value for name, value in mine.items() if value != getattr(own, name)}


def query_names() -> list[str]:
    """The names of all that `to_query` may write."""
    return ["model", *map(_option, settings(SampleConfig)), "with"]


def parts(query: str) -> tuple[dict[str, str], list[str]]:
    """Names and values of a query; of a name that comes twice, the last."""
    if len(query) > QUERY_MOST:
        return {}, [f"The link has more than {QUERY_MOST:,} characters, so nothing of it is used."]
    try:
        pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}, ["The link has more than 100 parts, so nothing of it is used."]
    return dict(pairs), []


def _changed(config: SampleConfig, name: str, text: str, model: Checkpoint | Facts) -> SampleConfig:
    """A setting of `config` changed to what a visitor wrote, checked against the model.

    Raises:
        ValueError: it isn't allowed.
    """
    if name == "labels":
        return dataclasses.replace(config, labels=parse_classes(text, model.classes))
    config = config.but(**{name: _value(name, text)})
    if name == "guidance":
        require_guided(config.guidance, model)
    for key, t in (("start", config.start), ("timesteps", (config.timesteps or [None])[0])):
        if t is not None:
            number(key, t, 1, model.diffusion.T, whole=True)
    return config


def _value(name: str, text: str) -> Any:
    """What a text stands for, by the type of the setting.

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
        raise ValueError(f"{name} is {shortened(text)!r}; allowed is a number.") from None


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _option(name: str) -> str:
    return settings(SampleConfig)[name][1].option or name


def shortened(text: str) -> str:
    """A bad value, as far as a message shows it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
