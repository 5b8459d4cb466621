"""Options of the command line, out of the settings that `config` describes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_demo.config.setting import Setting, settings
from ddpm_demo.files import expand

COUNTS = 10**12  # settings that may be as large can be written as 5e6 or 300k


def add_settings(
    p: argparse._ActionsContainer,
    cls: type,
    names: Sequence[str],
    *,
    unset: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add an option for each of the named settings of a dataclass.

    Args:
        unset: the options are None where they are not given; this says what then holds, and the
            setting's own default follows.
        changes: arguments of `add_argument` by setting, which go before what the setting says.
    """
    known = settings(cls)
    for name in names:
        field, about = known[name]
        given: dict[str, Any] = {"dest": name, "default": field.default, "help": about.help}
        if about.choices:
            given["choices"] = about.choices
        else:
            given |= _kind(field, about)
        given |= (changes or {}).get(name, {})
        if unset is not None:
            given["default"] = None
            given["help"] += f" (default: {unset}{_spoken(field.default, about)})"
        elif field.default is None and about.none:
            given["help"] += f" (default: {about.none})"
        p.add_argument(option(name, about), **given)


def option(name: str, about: Setting) -> str:
    """How a setting is called on the command line."""
    word = (about.option or name).replace("_", "-")
    return f"--{word}" if len(word) > 1 else f"-{word}"


def _kind(field: dataclasses.Field[Any], about: Setting) -> dict[str, Any]:
    """The arguments for the type of a field, which `from __future__` keeps as text."""
    kind = str(field.type).split(" |")[0]
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if kind == "int" and (about.high or 0) >= COUNTS:
        return {"type": count}
    types: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
    types["tuple[float, ...]"] = shares
    return {"type": types.get(kind, numbers)}


def _spoken(default: Any, about: Setting) -> str:
    if about.none:
        return about.none
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return text(default)
    return str(default)


def count(word: str) -> int:
    """A whole number, also as 5e6 or 300k."""
    scale = {"k": 1e3, "m": 1e6}.get(word[-1:].lower(), 1.0)
    try:
        return round(float(word[:-1] if scale > 1 else word) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number like 500000 or 500k") from None


def numbers(words: str) -> tuple[int, ...]:
    """Whole numbers, separated by commas; none for "none"."""
    try:
        return () if words == "none" else tuple(int(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 1,2,2") from None


def shares(words: str) -> tuple[float, ...]:
    """Numbers, separated by commas; none for "none"."""
    try:
        return () if words == "none" else tuple(float(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 0.05,0.1") from None


def text(numbers: Sequence[float]) -> str:
    """What `numbers` reads."""
    return ",".join(map(str, numbers)) or "none"


def path(word: str) -> Path:
    """A path; ~ and $NAME at its beginning are what they stand for."""
    if not word.strip():  # such as "$NAME" of nothing; it would be the working folder
        raise argparse.ArgumentTypeError(f"{word!r} names no file or folder")
    try:
        return expand(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def model_name(word: str) -> str:
    """A model's name or path, as `path` reads it."""
    return str(path(word)) if word.startswith(("~", "$")) else word


def dataset_name(word: str) -> str:
    """A data set's name, or folder:PATH, as `path` reads it."""
    kind, _, place = word.partition(":")
    short = kind == "folder" and place.strip().startswith(("~", "$"))
    return f"{kind}:{path(place.strip())}" if short else word
