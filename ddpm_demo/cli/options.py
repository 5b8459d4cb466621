"""Makes options of the command line from the settings that `config` describes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_demo.config.setting import Setting, settings
from ddpm_demo.machine.files import expand

COUNTS = 10**12  # settings that may be this large can be written as 5e6 or 300k


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
        unset: makes None the default of the options. These words then begin the default in the
            help, and the setting's own default follows.
        changes: arguments of `add_argument`, by setting. They override the setting's own.
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
    """The name of a setting on the command line."""
    word = (about.option or name).replace("_", "-")
    return f"--{word}" if len(word) > 1 else f"-{word}"


def _kind(field: dataclasses.Field[Any], about: Setting) -> dict[str, Any]:
    """The arguments of `add_argument` for the type of a field, which is stored as text."""
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
    """Read a whole number, such as 500000, 5e6 or 300k."""
    scale = {"k": 1e3, "m": 1e6}.get(word[-1:].lower(), 1.0)
    try:
        return round(float(word[:-1] if scale > 1 else word) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number like 500000 or 500k") from None


def numbers(words: str) -> tuple[int, ...]:
    """Read whole numbers, separated by commas. "none" is an empty list."""
    try:
        return () if words == "none" else tuple(int(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 1,2,2") from None


def shares(words: str) -> tuple[float, ...]:
    """Read numbers, separated by commas. "none" is an empty list."""
    try:
        return () if words == "none" else tuple(float(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 0.05,0.1") from None


def text(numbers: Sequence[float]) -> str:
    """Write numbers as `numbers` reads them."""
    return ",".join(map(str, numbers)) or "none"


def path(word: str) -> Path:
    """Read a path. ~ or $NAME at its beginning is replaced by what it stands for."""
    if not word.strip():  # an empty path, as from an empty "$NAME", would be the working folder
        raise argparse.ArgumentTypeError(f"{word!r} names no file or folder")
    try:
        return expand(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def model_name(word: str) -> str:
    """Read a model's name, or its path like `path`."""
    return str(path(word)) if word.startswith(("~", "$")) else word


def dataset_name(word: str) -> str:
    """Read a data set's name, or folder:PATH with the path like `path`."""
    kind, _, place = word.partition(":")
    short = kind == "folder" and place.strip().startswith(("~", "$"))
    return f"{kind}:{path(place.strip())}" if short else word
