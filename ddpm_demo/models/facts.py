"""Everything about a model but its weights. The page shows it before torch is loaded.

The command line, the app, the model cards and the Python API read and write classes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, from_dict, require

EACH, ANY = "each", "any"
NAMED = 20  # the most class names in a message
KEY = "ddpm_demo"  # the key of our JSON in the metadata of safetensors files


@dataclass(frozen=True)
class Facts:
    """Everything about a model but its weights.

    Attributes:
        name: the model's name, as in `Checkpoint`.
        config: the configuration of the network.
        diffusion: the process that the network was trained for.
        info: what the trainer wrote about it, as in `Checkpoint`.
        parameters: how many parameters the network has.
    """

    name: str
    config: ModelConfig
    diffusion: DiffusionConfig
    info: dict[str, Any]
    parameters: int

    @property
    def classes(self) -> list[str]:
        """The names of the network's classes. The list is empty if it was trained without."""
        return list(self.info.get("classes", ())) if self.config.num_classes else []

    @property
    def tuned_to(self) -> str | None:
        """The one class that it was fine-tuned to, if any. Shipped ones are named BASE-CLASS."""
        if not (base := self.info.get("base")):
            return None
        named = self.name.removeprefix(f"{base}-")
        only = (self.info.get("train") or {}).get("only")
        return only or (named if named in self.classes else None)

    @property
    def best(self) -> SampleConfig:
        """The model's own sampling settings.

        By default, a model with classes draws them in turn, or only the one it was fine-tuned to.
        """
        said = dict(self.info.get("sample") or {})
        if not {"label", "labels"} & said.keys():
            classes, only = self.classes, self.tuned_to
            each = tuple(range(len(classes))) or None
            said["labels"] = (classes.index(only),) if only in classes else each
        return from_dict(SampleConfig, said)

    @property
    def guided(self) -> bool:
        """True if the model has classes. Without classes, guidance does nothing."""
        return self.config.num_classes > 0

    def require_guided(self, guidance: float) -> None:
        """Refuse guidance that would do nothing.

        Raises:
            ValueError: guidance is not 1, but the model was trained without classes.
        """
        why = "the model has no classes"
        require(self.guided or guidance == 1, "guidance", guidance, 1, why)

    def parse_classes(self, text: str) -> tuple[int, ...] | None:
        """Turn words into labels, as the function of this name does for a list of classes."""
        return parse_classes(text, self.classes)

    def class_words(self, labels: tuple[int, ...] | None) -> str:
        """Turn labels into words."""
        return class_words(labels, self.classes)


def name_of(source: str) -> str:
    """A model's short name: the last part of a path, but the whole OWNER/NAME of a Hub repo."""
    path = PurePath(source)
    away = path.is_absolute() or source.startswith(("~", ".")) or len(path.parts) > 2
    return path.stem if away or path.suffix == ".safetensors" else source


def parse_classes(text: str, classes: Sequence[str]) -> tuple[int, ...] | None:
    """Turn words into labels. `SampleConfig.labels` says how a run uses several labels.

    Args:
        text: "each" (all classes in turn), "any" (the null class), or names or numbers of classes,
            separated by commas.
        classes: the model's class names; none if it was trained without classes.

    Raises:
        ValueError: the model doesn't know a word, or a class is named twice.
    """
    if text == ANY:
        return None
    require(bool(classes), "class", text, "any", "the model has no classes")
    if text == EACH:
        return tuple(range(len(classes)))
    words = [text] if text in classes else [word.strip() for word in text.split(",")]
    labels = tuple(_label(word, classes) for word in words)
    require(len(set(labels)) == len(labels), "class", text, "a list with each class once")
    return labels


def _label(word: str, classes: Sequence[str]) -> int:
    if word in classes:
        return classes.index(word)
    known = word.isascii() and word.isdecimal() and len(word) < 9 and int(word) < len(classes)
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    names = ", ".join(classes[:NAMED]) + more
    numbers = f"0 to {len(classes) - 1}"
    allowed = f"{EACH}, {ANY}, or with commas some of {numbers}, {names}"
    require(known, "class", word, allowed)
    return int(word)


def class_words(labels: tuple[int, ...] | None, classes: Sequence[str]) -> str:
    """Turn labels into the words that `parse_classes` reads."""
    if labels is None:
        return ANY
    if labels == tuple(range(len(classes))):
        return EACH
    return ",".join(_word(k, classes) for k in labels)


def _word(label: int, classes: Sequence[str]) -> str:
    """A class's name, or its number if the name could be misread."""
    name = classes[label] if label < len(classes) else ""
    plain = name and name not in (EACH, ANY) and "," not in name and name == name.strip()
    return name if plain else str(label)
