"""The classes that a run asks for, in words and in numbers.

The command line, the app, the model cards and the Python API read and write lists of classes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpm_demo.config.setting import require

if TYPE_CHECKING:
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.facts import Facts

EACH, ANY = "each", "any"
NAMED = 20  # the most class names in a message


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


def guided(model: Checkpoint | Facts) -> bool:
    """True if the model has classes. Without classes, guidance does nothing."""
    facts: Any = getattr(model, "facts", model)
    return bool(facts.config.num_classes > 0)


def require_guided(guidance: float, model: Checkpoint | Facts) -> None:
    """Refuse guidance that would do nothing.

    Raises:
        ValueError: guidance is not 1, but the model was trained without classes.
    """
    why = "the model has no classes"
    require(guided(model) or guidance == 1, "guidance", guidance, 1, why)


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


def tuned_to(checkpoint: Checkpoint | Facts) -> str | None:
    """The one class that a model was fine-tuned to, if any. Shipped ones are named BASE-CLASS."""
    info = checkpoint.info
    if not (base := info.get("base")):
        return None
    named = checkpoint.name.removeprefix(f"{base}-")
    only = (info.get("train") or {}).get("only")
    return only or (named if named in checkpoint.classes else None)


def own_labels(checkpoint: Checkpoint | Facts) -> tuple[int, ...] | None:
    """The class that a model was fine-tuned to, or all its classes. None if it has no classes."""
    classes, only = checkpoint.classes, tuned_to(checkpoint)
    if not classes:
        return None
    return (classes.index(only),) if only in classes else tuple(range(len(classes)))
