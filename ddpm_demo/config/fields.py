"""Describes and checks the settings of dataclasses.

The command line, the app, links and checkpoints read the descriptions (`settings`). A value that is
not allowed raises `ValueError`, with one sentence that says what is allowed and names the value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 200  # the most characters of a bad value in a message


class SettingError(ValueError):
    """A setting has a value that is not allowed.

    The message is one sentence: "NAME must be ALLOWED, not VALUE: WHY." None and an empty text mean
    that a value is missing; they are not named.
    """

    def __init__(self, name: str, value: object, allowed: object, why: str = "") -> None:
        super().__init__(name, value, allowed, why)
        self.name, self.value, self.allowed, self.why = name, value, allowed, why

    def __str__(self) -> str:
        word = self.name.split(" ")[0]
        plain = word.isalpha() and len(word) > 2  # t and T, or lr, stay as they are
        name = self.name[0].upper() + self.name[1:] if plain else self.name
        value = repr(self.value)
        shown = value if len(value) <= SHOWN else f"{value[: SHOWN - 1]}…"
        said = "" if value in ("None", "''") else f", not {shown}"
        return f"{name} must be {self.allowed}{said}{self.why and f': {self.why}'}."


def require(ok: bool, name: str, value: object, allowed: object, why: str = "") -> None:
    """Raise `SettingError` unless `ok`."""
    if not ok:
        raise SettingError(name, value, allowed, why)


def number(
    name: str, value: object, low: float, high: float, *, whole: bool = False, above: bool = False
) -> None:
    """Raise `ValueError` unless `value` is a number from `low` to `high`.

    Args:
        whole: only whole numbers.
        above: `low` itself is not allowed.
    """
    kinds = (int,) if whole else (int, float)
    ok = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    kind = "a whole number" if whole else "a number"
    ends = f"above {low:,} and up to {high:,}" if above else f"from {low:,} to {high:,}"
    require(ok and not (above and value == low), name, value, f"{kind} {ends}")


def either(words: Iterable[str]) -> str:
    """The words as a list: "a, b or c". Without any, the setting has to be left out."""
    *others, last = [*words] or ["left out"]
    return f"{', '.join(others)} or {last}" if others else last


def counted(number: int, word: str) -> str:
    """A number of things in words: "1 step", "20 steps"."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    require(value in allowed, name, value, either(allowed))


def whole_numbers(values: object, low: int, high: int) -> bool:
    """True if `values` is a tuple of whole numbers from `low` to `high`."""
    return isinstance(values, tuple) and all(type(v) is int and low <= v <= high for v in values)


@dataclass(frozen=True)
class Setting:
    """The description of a setting, besides its name, type and default.

    Attributes:
        help: what it does, in a few words, without a capital letter or a full stop.
        label: the label of its control; if empty, the setting's name.
        choices: the allowed words; if empty, any word.
        low, high: the smallest and largest allowed number; None if nothing or other code checks it.
        whole: only whole numbers are allowed.
        above: `low` itself is not allowed.
        none: words for the help on what holds if the setting is None.
        option: its name on the command line and in links, if it differs from the setting's name.
        upload: the setting is a picture's file. The page offers an upload; links can't hold it.
    """

    help: str
    label: str = ""
    choices: Collection[str] = ()
    low: float | None = None
    high: float | None = None
    whole: bool = False
    above: bool = False
    none: str = ""
    option: str = ""
    upload: bool = False

    @property
    def sentence(self) -> str:
        """The help with a capital letter and a full stop, as the page writes it."""
        return self.help[0].upper() + self.help[1:] + "."

    def check(self, name: str, value: object) -> None:
        """Raise `ValueError` unless the value is allowed."""
        if self.choices:
            one_of(name, value, tuple(self.choices))
        if self.low is not None and self.high is not None:
            number(name, value, self.low, self.high, whole=self.whole, above=self.above)


def setting(default: Any, help: str, **about: Any) -> Any:
    """A field of a dataclass with a description. `about` has the other fields of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **about)})


def settings(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Setting]]:
    """The settings of a dataclass, by name: each with its field and description."""
    described = (f for f in dataclasses.fields(cls) if "setting" in f.metadata)
    return {f.name: (f, f.metadata["setting"]) for f in described}


def check(config: object) -> None:
    """Raise `ValueError` unless each value is allowed. None is allowed if it is the default."""
    for name, (field, about) in settings(type(config)).items():
        value = getattr(config, name)
        if isinstance(field.default, bool):
            require(isinstance(value, bool), name, value, "True or False")
        if isinstance(field.default, str) and not about.choices:
            require(isinstance(value, str), name, value, "a text")
        if value is not None or field.default is not None:
            about.check(name, value)
