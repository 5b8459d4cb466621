"""One setting of a dataclass: described once and checked.

The command line, the app, links and checkpoints read the descriptions (`settings`). A value that
makes no sense raises `ValueError` with one sentence that names the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 200  # characters of a bad value in a message


class SettingError(ValueError):
    """A setting has a value that is not allowed; the message is one sentence."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        said = repr(self.value)
        shown = said if len(said) <= SHOWN else f"{said[: SHOWN - 1]}…"
        return f"{self.name} is {shown}; allowed is {self.allowed}."


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise `SettingError` unless `ok`."""
    if not ok:
        raise SettingError(name, value, allowed)


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
    what = ("a whole number " if whole else "") + ("above" if above else "from")
    require(ok and not (above and value == low), name, value, f"{what} {low:,} to {high:,}")


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    require(value in allowed, name, value, "one of " + ", ".join(allowed))


def whole_numbers(values: object, low: int, high: int) -> bool:
    """Whether `values` is a tuple of whole numbers from `low` to `high`."""
    return isinstance(values, tuple) and all(type(v) is int and low <= v <= high for v in values)


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: what it does, in a few words, without a capital letter or a full stop.
        label: what its control is called; its name if empty.
        choices: the words that are allowed; any if empty.
        low, high: the numbers that are allowed; None: another check, or none.
        whole: only whole numbers are allowed.
        above: `low` itself is not allowed.
        none: what stands in where nothing is said.
        option: its name on the command line and in links, if that is another.
        upload: a picture's file; the page takes an upload for it, which no link holds.
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
    """A field of a dataclass that describes itself; `about` is that of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **about)})


def settings(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Setting]]:
    """The settings of a dataclass by name: field and description."""
    described = (f for f in dataclasses.fields(cls) if "setting" in f.metadata)
    return {f.name: (f, f.metadata["setting"]) for f in described}


def check(config: object) -> None:
    """Raise `ValueError` unless each value is allowed; None is, where it is the default."""
    for name, (field, about) in settings(type(config)).items():
        value = getattr(config, name)
        if isinstance(field.default, bool):
            require(isinstance(value, bool), name, value, "True or False")
        if isinstance(field.default, str) and not about.choices:
            require(isinstance(value, str), name, value, "a text")
        if value is not None or field.default is not None:
            about.check(name, value)
