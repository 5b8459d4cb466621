"""Changes of a run as texts, such as "z=0:400": the interventions of a `RunSpec`.

Each text is NAME=PART:PART:... The change begins at t = FROM. LOW is the last t at which it holds;
it can be left out, and is then 1. Pictures are counted from 0.

| text | what it does |
| --- | --- |
| z=FACTOR:FROM:LOW | multiply the fresh noise by a factor: 0 drops it, -1 negates it |
| eps=FACTOR:FROM:LOW | multiply eps_hat by a factor |
| guidance=W:FROM:LOW | use guidance scale W |
| draw=OPERATION:FROM:PICTURE:MASK | draw on x_t of PICTURE, or of all (`interventions.DRAWING`) |
| noise=SEED:FROM | draw fresh noise from new seeds, counted from SEED |
| class=NUMBER:FROM | use this class for all pictures; -1 is "any" |
| clip=0:FROM, clip=1:FROM | stop clipping x0_hat, or clip it |
| sampler=NAME:FROM, eta=ETA:FROM | use another sampler, or another eta of DDIM |
| fork=COUNT:FROM:PICTURE | go on COUNT times from one picture; the first keeps its own noise |
| picture=T1,T2,...:FROM | picture k is the given one, noised, down to T_k; one T holds for all |
| keep=TIMES:FROM:MASK:K | keep given picture K outside the mask; walk each step TIMES times |

The last two need pictures that the run is given (see `inference.given`). These two and the first
four change steps of one walk, as interventions of `diffusion.walk`. The others end one stretch of
the run at FROM, and begin another from its state.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddpm_demo.config import SAMPLERS, SEED_MAX, T_MAX, SampleConfig, number, one_of, require
from ddpm_demo.diffusion import (
    DRAWING,
    Between,
    Draw,
    FromPicture,
    Guidance,
    Inpaint,
    Intervention,
    ScaleEps,
    State,
    Terms,
)

CELLS = 32  # the most cells along a side of a mask
FORKS = 16  # the most continuations of one picture
APART = 1_000_003  # the distance between the seeds of two continuations
TIMES = 20  # the most times that `keep` walks a step
GIVEN = 4  # the most pictures that a run is given


@dataclass(frozen=True)
class Now:
    """The settings of one stretch of a run.

    Attributes:
        config: how the run is sampled now.
        seeds: the seed of each picture's noise.
        origin: for each picture, its number at the start of the run. After a fork, it is the number
            of the picture that was forked.
        given: the pictures that the run is given, (1, C, H, W) in [-1, 1].
    """

    config: SampleConfig
    seeds: tuple[int, ...]
    origin: tuple[int, ...]
    given: Sequence[torch.Tensor] = ()

    @classmethod
    def first(cls, config: SampleConfig, given: Sequence[torch.Tensor] = ()) -> Now:
        """The settings with which a run begins."""
        return cls(
            config, tuple(range(config.seed, config.seed + config.n)), (*range(config.n),), given
        )


@dataclass(frozen=True)
class Change:
    """A change, read from its text.

    Attributes:
        text: the text itself, as in a `RunSpec`.
        name: the part before the "=".
        parts: the parts after the "=".
        t: the t at which the change begins.
    """

    text: str
    name: str
    parts: tuple[str, ...]
    t: int

    @property
    def turns(self) -> bool:
        """True if the change begins a new stretch of the run."""
        return self.name in _TURNS

    def hook(self, now: Now) -> Intervention | None:
        """The intervention that makes this change in a walk; None if it begins a new stretch."""
        make = _HOOKS.get(self.name)
        return make(self, now) if make else None

    def whole(self, k: int, low: int, high: int) -> int:
        return int(_numeric(self.name, self.parts[k], low, high, whole=True))

    def real(self, k: int, low: float, high: float) -> float:
        return _numeric(self.name, self.parts[k], low, high)

    def settings(self, now: Now) -> Now:
        """The settings after this change."""
        if self.name in _TURNS:
            return _TURNS[self.name](self, now)
        return now

    def state(self, state: State) -> State:
        """The state from which the next stretch begins."""
        if self.name == "fork":
            count, picture = self.whole(0, 1, FORKS), self.whole(2, 0, len(state.x) - 1)
            pick = [picture] * count
            past = tuple(
                seen._replace(x=None if seen.x is None else seen.x[pick], x0=seen.x0[pick])
                for seen in state.past
            )
            return dataclasses.replace(state, x=state.x[pick], past=past)
        if self.name == "sampler":
            return dataclasses.replace(state, past=())
        return state

    @property
    def words(self) -> str:
        """The change in words for the title of a run, such as "z left out from t = 400"."""
        value, when = self.parts[0], f"from t = {self.t}"
        if self.name in UNTIL and len(self.parts) > 2:
            when += f" to {self.parts[2]}"
        if self.name in ("draw", "picture"):
            when = f"at t = {self.t}" if self.name == "draw" else ""
            value = value.replace(",", ", ")
        if self.name == "fork":
            value = f"{value} continuations of picture {int(self.parts[2]) + 1}"
        said = SAID.get(f"{self.name}={value}") or SAID[self.name].format(value)
        return f"{said} {when}".strip()


SAID = {
    "z=0": "z left out",
    "z=-1": "z negated",
    "z": "z × {}",
    "eps": "ε̂ × {}",
    "guidance": "guidance {}",
    "draw=erase": "erased to noise",
    "draw=bright": "painted bright",
    "draw=dark": "painted dark",
    "draw=flip": "mirrored",
    "draw=shift": "shifted",
    "noise": "fresh noise of seed {}",
    "class=-1": "any class",
    "class": "class {}",
    "clip=0": "x̂₀ not clipped",
    "clip=1": "x̂₀ clipped",
    "sampler": "{}",
    "eta": "η = {}",
    "fork": "{}",
    "picture": "a picture, noised to t = {}",
    "keep=1": "all kept but a drawn part",
    "keep": "all kept but a drawn part, each step {} times",
}
"""The words for each change. {} stands for its value."""


def _numeric(name: str, text: str, low: float, high: float, *, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        require(False, name, text[:40], f"a number from {low:,} to {high:,}")
    number(name, value, low, high, whole=whole)
    return value


# --- what they do ---------------------------------------------------------------------------------


def _between(change: Change, inner: Intervention) -> Intervention:
    low = change.whole(2, 1, change.t) if len(change.parts) > 2 else 1
    return Between(inner, change.t, low)


def _draw(change: Change, _: Now) -> Intervention:
    operation, rest = change.parts[0], change.parts[2:]
    one_of("draw", operation, tuple(DRAWING))
    picture = change.whole(2, 0, T_MAX) if rest and rest[0] else None
    return Draw(operation, change.t, read_mask(rest[1]) if rest[1:] else None, picture)


def _picture(change: Change, now: Now) -> Intervention:
    words = change.parts[0].split(",")
    ts = [int(_numeric("t of picture", word, 1, change.t, whole=True)) for word in words]
    most = max(now.origin)
    if len(ts) == 1:  # it holds for all pictures
        ts *= most + 1
    require(len(ts) > most, "count of t", len(ts), "1, or one for each picture")
    seeds = [now.config.seed + k for k in now.origin]
    return FromPicture(_given(now, 0), [ts[k] for k in now.origin], seeds)


def _keep(change: Change, now: Now) -> Intervention:
    known = _given(now, change.whole(3, 0, GIVEN - 1))
    inpaint = Inpaint(known, ~read_mask(change.parts[2]), change.whole(0, 1, TIMES))
    return Between(inpaint, change.t)


def _given(now: Now, k: int) -> torch.Tensor:
    require(k < len(now.given), "number of pictures given", len(now.given), f"{k + 1} or more")
    return now.given[k]


_HOOKS: dict[str, Callable[[Change, Now], Intervention]] = {
    "z": lambda c, _: _between(c, Terms("z", c.real(0, -10, 10))),
    "eps": lambda c, _: _between(c, ScaleEps(c.real(0, 0, 10))),
    "guidance": lambda c, _: _between(c, Guidance(c.real(0, 0, 20))),
    "draw": _draw,
    "picture": _picture,
    "keep": _keep,
}


def _noise(change: Change, now: Now) -> Now:
    first = change.whole(0, 0, SEED_MAX)
    return dataclasses.replace(now, seeds=tuple(range(first, first + now.config.n)))


def _class(change: Change, now: Now) -> Now:
    label = change.whole(0, -1, 9999)
    return dataclasses.replace(
        now, config=dataclasses.replace(now.config, labels=None if label < 0 else (label,))
    )


def _setting(name: str, read: Callable[[Change], Any]) -> Callable[[Change, Now], Now]:
    def turn(change: Change, now: Now) -> Now:
        config = dataclasses.replace(now.config, **{name: read(change)})
        return dataclasses.replace(now, config=config)

    return turn


def _fork(change: Change, now: Now) -> Now:
    count, picture = change.whole(0, 1, FORKS), change.whole(2, 0, now.config.n - 1)
    labels = now.config.label_of_each()
    own = None if labels is None else (labels[picture],)
    config = dataclasses.replace(now.config, n=count, labels=own)
    seeds = tuple(now.seeds[picture] + APART * k for k in range(count))
    return dataclasses.replace(
        now, config=config, seeds=seeds, origin=(now.origin[picture],) * count
    )


_TURNS: dict[str, Callable[[Change, Now], Now]] = {
    "noise": _noise,
    "class": _class,
    "clip": _setting("clip", lambda c: bool(c.whole(0, 0, 1))),
    "sampler": _setting("sampler", lambda c: c.parts[0]),
    "eta": _setting("eta", lambda c: c.real(0, 0, 1)),
    "fork": _fork,
}
UNTIL = ("z", "eps", "guidance")  # changes that may end at a given t
_PARTS = {
    **dict.fromkeys(UNTIL, (2, 3)),
    "draw": (2, 4),
    "fork": (3, 3),
    "keep": (4, 4),
}


def ordered(changes: Sequence[Change]) -> list[Change]:
    """The changes in the order in which the run meets them, from the highest t down."""
    return sorted(changes, key=lambda change: -change.t)


# --- texts ----------------------------------------------------------------------------------------


def read(texts: Sequence[str], now: Now) -> list[Change]:
    """Read and check the changes of a run.

    Args:
        now: the settings with which the run begins.

    Raises:
        ValueError: a text is not in the table above, or one of its values is not allowed.
    """
    found = [_read(text) for text in texts]
    for change in ordered(found):
        now = change.settings(now)
        change.hook(now)
    return found


def words_of(texts: Sequence[str]) -> list[str]:
    """Each change in words, for the title of a run."""
    return [_read(text).words for text in texts]


def _read(text: str) -> Change:
    name, _, value = text.partition("=")
    one_of("change", name, (*_HOOKS, *_TURNS))
    parts = tuple(value.split(":"))
    low, high = _PARTS.get(name, (2, 2))
    count = f"{low}" if low == high else f"{low} to {high}"
    require(low <= len(parts) <= high, name, value[:40], f"{count} parts with : between")
    t = int(_numeric(f"t of {name}", parts[1], 1, T_MAX, whole=True))
    if name == "sampler":
        one_of(name, parts[0], tuple(SAMPLERS))
    return Change(text, name, parts, t)


def read_mask(text: str) -> torch.Tensor:
    """Read a square mask of 4 x 4 to 32 x 32 cells; bool (side, side).

    Args:
        text: the bits, row by row, in URL-safe base64 without padding.

    Raises:
        ValueError: the text is not such a mask.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    side = int((8 * len(raw)) ** 0.5)
    require(4 <= side <= CELLS, "mask", text[:40], f"a square of 4 to {CELLS} cells a side")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8))
    require(len(bits) - side**2 < 8, "mask", text[:40], "the bits of a square")
    return torch.from_numpy(bits[: side**2].reshape(side, side).astype(bool))


def write_mask(mask: torch.Tensor) -> str:
    """Write a mask as the text that `read_mask` reads."""
    bits = np.packbits(mask.numpy().astype(np.uint8).reshape(-1))
    return base64.urlsafe_b64encode(bits.tobytes()).decode().rstrip("=")
