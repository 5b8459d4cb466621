"""What a link holds of Forward noising: the picture, its noise, the schedules, and t."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ddpm_demo.config import (
    SEED_MAX,
    T_MAX,
    T_MIN,
    DiffusionConfig,
    default_timesteps,
    number,
    one_of,
    parse_timesteps,
    require,
)
from ddpm_demo.inference.spec import shortened
from ddpm_demo.ui.components.links import Read, whole
from ddpm_demo.ui.forward.asked import EXAMPLES, SIZE, SIZES, VIEWS, words_of

UPLOAD = "own"  # stands for an upload, which a link can't hold
PICTURES = {Path(path).stem: path for path in EXAMPLES}
NOISES = ("gaussian", "laplace")


@dataclass(frozen=True)
class Shown:
    """The values of the tab's controls."""

    picture: str = next(iter(PICTURES))
    size: int = SIZE
    noise: str = DiffusionConfig.noise
    seed: int = 0
    schedule: str = "both"
    # A link sets the controls in this order, and a new T may change the timesteps of the strip.
    timesteps: str = ""  # of the strip; if empty, spread over all of T
    T: int = DiffusionConfig.T
    beta_start: float = DiffusionConfig.beta_start
    beta_end: float = DiffusionConfig.beta_end


NAMES = (*Shown.__dataclass_fields__, "t")


def _chosen(name: str, text: str, allowed: Any) -> str:
    one_of(name, shortened(text), tuple(allowed))
    return text


def _beta(name: str, text: str, _: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    require(0 < value < 1, name, shortened(text), "a number above 0 and below 1")
    return value


def _picture(name: str, text: str, _: int) -> str:
    if text == UPLOAD:
        raise ValueError("The picture was an upload, which a link does not hold; choose one here.")
    return _chosen(name, text, PICTURES)


def _size(name: str, text: str, _: int) -> int:
    return int(_chosen(name, text, map(str, SIZES)))


def _strip(name: str, text: str, T: int) -> str:
    return words_of(parse_timesteps(text, T))


CHECKS: dict[str, Callable[[str, str, int], Any]] = {
    "T": lambda name, text, _: whole(name, text, T_MIN, T_MAX),  # first: others need it
    "picture": _picture,
    "size": _size,
    "noise": lambda name, text, _: _chosen(name, text, NOISES),
    "seed": lambda name, text, _: whole(name, text, 0, SEED_MAX),
    "schedule": lambda name, text, _: _chosen(name, text, VIEWS),
    "beta_start": _beta,
    "beta_end": _beta,
    "timesteps": _strip,
    "t": lambda name, text, T: whole(name, text, 0, T),
}


def shown(given: dict[str, str]) -> tuple[Shown, dict[str, int], list[str]]:
    """The values of a link, its t if it has one, and a sentence on each bad value."""
    good: dict[str, Any] = {}
    problems = []
    for name, check in CHECKS.items():
        if name in given:
            try:
                good[name] = check(name, given[name], good.get("T", Shown.T))
            except ValueError as error:
                problems.append(str(error))
    page = {"t": good.pop("t")} if "t" in good else {}
    found = Shown(**good)
    try:
        number("beta_start", found.beta_start, 0, found.beta_end, above=True)
    except ValueError as error:
        problems.append(str(error))
        found = Shown(**good | {"beta_start": Shown.beta_start, "beta_end": Shown.beta_end})
    return found, page, problems


def query(picture: Any, *values: Any) -> Any:
    """The address's query for the controls. It stays as it is while one of them is wrong.

    Args:
        picture: an example's name, `UPLOAD`, or nothing for the first example.
        values: the other fields of `Shown`.
    """
    names = [name for name in Shown.__dataclass_fields__ if name != "picture"]
    found, _, problems = shown(dict(zip(names, map(str, values), strict=False)))
    if problems or len(values) != len(names):  # nothing is checked before: anybody may have asked
        return gr.skip()
    strip = "" if found.timesteps == strip_of(Shown(T=found.T)) else found.timesteps
    picture = picture or Shown.picture
    picture = picture if isinstance(picture, str) and picture in PICTURES else UPLOAD
    return query_of(dataclasses.replace(found, picture=picture, timesteps=strip))


def query_of(found: Shown) -> str:
    """The query for what differs from a new page."""
    return urlencode({k: v for k, v in vars(found).items() if v != getattr(Shown, k)})


def strip_of(found: Shown) -> str:
    """The timesteps of the strip as they stand in the box."""
    return found.timesteps or words_of(default_timesteps(found.T))


def read(given: dict[str, str]) -> Read:
    """Values of the tab's controls, in the order of `Shown`, and what `kept` holds."""
    found, page, problems = shown(given)
    values = {**vars(found), "picture": PICTURES[found.picture], "timesteps": strip_of(found)}
    return Read([*values.values(), found.picture], page, query_of(found), problems)
