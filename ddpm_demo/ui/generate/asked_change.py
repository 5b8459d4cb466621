"""What a visitor changes in a run: the choices of "Pause and change", and the place on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddpm_demo.config import T_MAX, either, require

NOTHING = "nothing"
KEEP = "keep="
CHANGES = {
    NOTHING: "Nothing",
    "z=0": "Leave z out",
    "z=-1": "Negate z",
    "noise=": "Another z (value: a seed)",
    "eps=": "Scale ε̂ (value: a factor, such as 1.02)",
    "guidance=": "Another guidance (value: w)",
    "class=": "Another class (value: its name, or any)",
    "clip=0": "Don’t clip x̂₀",
    "clip=1": "Clip x̂₀",
    "draw=erase": "Erase to noise",
    "draw=bright": "Paint bright",
    "draw=dark": "Paint dark",
    "draw=flip": "Mirror",
    "draw=shift": "Shift to the right",
    KEEP: "Redo what I draw, keep the rest (value: walks of a step)",
    "sampler=ddpm": "Go on with DDPM",
    "sampler=ddim": "Go on with DDIM",
}
ONCE = ("z=0", "z=-1", "eps=", "guidance=")  # that may also hold for one step
VALUES = {"noise=": "1", "eps=": "1.02", "guidance=": "3", "class=": "any", KEEP: "3"}
BREAKS = 20  # breakpoints, at most


@dataclass(frozen=True)
class Place:
    """Which run the page shows, and which part of it.

    Attributes:
        run: the run's name on the server, which may have forgotten it.
        step: the index of the frame that is shown.
        one: the number of the only picture shown; None for all.
        meta: the run's metadata, enough to make it again.
        mask: the drawing, as `inference.changes.read_mask` takes it, or an empty text.
    """

    run: str
    step: int
    one: int | None
    meta: Mapping[str, str] = field(default_factory=dict)
    mask: str = ""

    @classmethod
    def read(cls, text: Any) -> Place:
        """Read what the page's own script has written.

        Raises:
            ValueError: the page shows no run, or its script didn't write this.
        """
        try:
            values = json.loads(text)
            place = cls(*(values[key] for key in ("run", "step", "one", "meta", "mask")))
        except (TypeError, ValueError, KeyError):
            raise ValueError("There is no run on this page yet: press Generate first.") from None
        ok = isinstance(place.run, str) and isinstance(place.mask, str)
        ok = ok and type(place.step) is int and 0 <= place.step <= T_MAX
        ok = ok and (place.one is None or (type(place.one) is int and place.one >= 0))
        ok = ok and isinstance(place.meta, dict)
        ok = ok and all(isinstance(part, str) for part in place.meta.values())
        require(ok, "place", "…", "what the page itself writes")
        return place


def change_text(
    kind: Any, value: Any, once: Any, t: int, place: Place, classes: Sequence[str]
) -> list[str]:
    """The change of a form, from the step at t on, as `inference.changes` takes it; or none.

    Of `KEEP`, all but the number of the picture that is kept, which comes last.

    Args:
        kind: one of `CHANGES`.
        value: what was typed, for the kinds that end in "=".
        once: change this step only.

    Raises:
        ValueError: there is no such kind.
    """
    require(isinstance(kind, str) and kind in CHANGES, "change", kind, either(CHANGES))
    if kind == NOTHING:
        return []
    if kind == "class=":
        value = _class(str(value).strip(), classes)
    text = f"{kind}{str(value).strip() if kind.endswith('=') else ''}:{t}"
    if kind == KEEP:
        require(bool(place.mask), "drawing", None, "a part of a picture that you have enlarged")
        return [f"{text}:{place.mask}"]
    if kind.startswith("draw="):
        one = "" if place.one is None else str(place.one)
        return [f"{text}:{one}:{place.mask}".rstrip(":")]
    return [f"{text}:{t}" if once and kind in ONCE else text]


def _class(word: str, classes: Sequence[str]) -> int:
    if word == "any":
        return -1
    require(bool(classes), "class", word, "any", "the model has no classes")
    names = [name.lower() for name in classes]
    known = word.lower() in names
    number = int(word) if word.isdecimal() and len(word) < 5 else -1
    require(known or 0 <= number < len(classes), "class", word, either(["any", *classes]))
    return names.index(word.lower()) if known else number


def breakpoints(text: Any) -> list[int]:
    """The t at which a run stops.

    Raises:
        ValueError: they are not whole numbers from 0, or there are too many.
    """
    words = str(text or "").replace(",", " ").split()
    require(len(words) <= BREAKS, "number of breakpoints", len(words), f"up to {BREAKS}")
    for word in words:
        ok = word.isascii() and word.isdecimal() and len(word) < 7
        require(ok, "breakpoint", word[:40], "whole numbers from 0, with commas between")
    return [int(word) for word in words]
