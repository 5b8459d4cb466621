"""Which class each picture of a run is asked to be, in words and in numbers.

The command line, the app, the cards and Python read and write class lists here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpm_demo.config.setting import require

if TYPE_CHECKING:
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.facts import Facts

EACH, ANY = "each", "any"
NAMED = 20  # class names in a message


def parse_classes(text: str, classes: Sequence[str]) -> tuple[int, ...] | None:
    """The labels that words ask for; `SampleConfig.labels` says how they take turns.

    Args:
        text: "each" (all classes in turn), "any" (the null class), or names or numbers of classes,
            separated by commas.
        classes: the names that the model knows, none if it was trained without classes.

    Raises:
        ValueError: a word that the model doesn't know, or a class that is named twice.
    """
    if text == ANY:
        return None
    require(bool(classes), "class", text, "any, as the model has no classes")
    if text == EACH:
        return tuple(range(len(classes)))
    words = [text] if text in classes else [word.strip() for word in text.split(",")]
    labels = tuple(_label(word, classes) for word in words)
    require(len(set(labels)) == len(labels), "class", text, "each class once")
    return labels


def guided(model: Checkpoint | Facts) -> bool:
    """Whether the model has classes, without which guidance does nothing."""
    facts: Any = getattr(model, "facts", model)
    return bool(facts.config.num_classes > 0)


def require_guided(guidance: float, model: Checkpoint | Facts) -> None:
    """Refuse a guidance that would do nothing.

    Raises:
        ValueError: the model was trained without classes, so there is nothing to follow.
    """
    allowed = "1, as the model has no classes"
    require(guided(model) or guidance == 1, "guidance", guidance, allowed)


def _label(word: str, classes: Sequence[str]) -> int:
    if word in classes:
        return classes.index(word)
    known = word.isascii() and word.isdecimal() and len(word) < 9 and int(word) < len(classes)
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    names = ", ".join(classes[:NAMED]) + more
    numbers = f"0 to {len(classes) - 1}"
    require(known, "class", word, f"{EACH}, {ANY}, {numbers}, {names}; several with commas")
    return int(word)


def class_words(labels: tuple[int, ...] | None, classes: Sequence[str]) -> str:
    """The words for labels: what `parse_classes` reads."""
    if labels is None:
        return ANY
    if labels == tuple(range(len(classes))):
        return EACH
    return ",".join(_word(k, classes) for k in labels)


def _word(label: int, classes: Sequence[str]) -> str:
    """A class's name, or its number where the name could be read as something else."""
    name = classes[label] if label < len(classes) else ""
    plain = name and name not in (EACH, ANY) and "," not in name and name == name.strip()
    return name if plain else str(label)


def tuned_to(checkpoint: Checkpoint | Facts) -> str | None:
    """The class that a model was fine-tuned to, if to one; shipped ones are called BASE-CLASS."""
    info = checkpoint.info
    if not (base := info.get("base")):
        return None
    named = checkpoint.name.removeprefix(f"{base}-")
    only = (info.get("train") or {}).get("only")
    return only or (named if named in checkpoint.classes else None)


def own_labels(checkpoint: Checkpoint | Facts) -> tuple[int, ...] | None:
    """The class that a model was fine-tuned to, or else all its classes; None if it has none."""
    classes, only = checkpoint.classes, tuned_to(checkpoint)
    if not classes:
        return None
    return (classes.index(only),) if only in classes else tuple(range(len(classes)))
