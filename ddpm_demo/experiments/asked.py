"""The settings of the experiments. The page, the command line and links read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddpm_demo.config import SEED_MAX, check, require, setting, whole_numbers

# The names of the rows of `bugs.BUGS`. That module imports torch; this one doesn't.
BUG_NAMES = (
    "unclipped",
    "last-noise",
    "no-root",
    "short",
    "steep",
    "ddim-sigma",
    "other-noise",
    "base-model",
    "no-ema",
    "zero-one",
    "no-noise",
    "same-noise",
    "eps-for-v",
)
OTHER_NOISES = ("gaussian", "laplace", "uniform", "coin")
MOST_POINTS, REACH = 200, 2.6  # the most points of a visitor, and their largest x and y
SHAPES = ("moons", "spiral", "eight gaussians")
SEED: dict[str, Any] = {"low": 0, "high": SEED_MAX - 1000, "whole": True, "label": "Seed"}


@dataclass(frozen=True)
class Race:
    """The race of the samplers."""

    model: str = setting("mnist", "a model's name or path", label="Model")
    calls: tuple[int, ...] = setting(
        (5, 10, 20, 50), "how often the network is asked, a column each", label="Calls"
    )
    seed: int = setting(0, "picture k uses seed SEED + k", **SEED)

    def __post_init__(self) -> None:
        check(self)
        ok = whole_numbers(self.calls, 1, 200) and 1 <= len(self.calls) <= 6
        require(ok, "calls", self.calls, "one to six whole numbers from 1 to 200")


@dataclass(frozen=True)
class Break:
    """A well-known bug, put into a run."""

    bug: str = setting("last-noise", "what goes wrong", choices=BUG_NAMES, label="Bug")
    seed: int = setting(0, "both runs use this seed", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Guess:
    """Three runs. One of them is broken."""

    seed: int = setting(0, "another seed is another riddle", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Copying:
    """Generated pictures, and the training pictures that are nearest to them."""

    model: str = setting("mnist", "a model's name or path", label="Model")
    pictures: int = setting(
        100, "training pictures that the exact denoiser knows", low=1, high=10_000, whole=True,
        label="Set of the exact denoiser",
    )  # fmt: skip
    seed: int = setting(0, "picture k uses seed SEED + k", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Decide:
    """When the class of a picture is decided."""

    model: str = setting("mnist", "a model's name or path", label="Model")
    seed: int = setting(0, "the seed of the noise", **SEED)
    sampler: str = setting(
        "dpmpp_2m_sde", "a sampler that adds fresh noise", choices=("ddpm", "ddim", "dpmpp_2m_sde"),
        label="Sampler",
    )  # fmt: skip
    steps: int = setting(
        10, "number of steps of each run", low=5, high=100, whole=True, label="Steps"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Guide:
    """What classifier-free guidance does in each step."""

    model: str = setting("mnist", "name or path of a model with classes", label="Model")
    label: str = setting("3", "the name of a class, or its number", label="Class")
    w: float = setting(
        3.0, "guidance of the run whose answers are shown", low=0, high=20, label="w"
    )
    high: int = setting(
        700, "guidance on an interval begins at this t", low=1, high=10_000, whole=True,
        label="Interval from t",
    )  # fmt: skip
    low: int = setting(
        300,
        "guidance on an interval ends at this t",
        low=1,
        high=10_000,
        whole=True,
        label="Interval to t",
    )
    seed: int = setting(0, "picture k uses seed SEED + k", **SEED)

    def __post_init__(self) -> None:
        check(self)
        require(self.w != 1, "w", self.w, "another number", "at 1, the network is asked once")
        require(
            self.low <= self.high,
            "low",
            self.low,
            f"up to {self.high}",
            "the interval begins there",
        )


@dataclass(frozen=True)
class Noises:
    """Noise that is not Gaussian."""

    noise: str = setting("coin", "what each step adds", choices=OTHER_NOISES, label="Noise")
    model: str = setting("mnist", "a model's name or path", label="Model")
    seed: int = setting(0, "the seed of all random numbers", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Plane:
    """Points in the plane."""

    shape: str = setting("moons", "what the points make up", choices=SHAPES, label="Shape")
    points: str = setting(
        "", "x,y of points to use instead of a shape: -1,0; 0.5,1.2; 1,0", label="Points of yours"
    )
    seed: int = setting(0, "the seed of all random numbers", **SEED)

    def __post_init__(self) -> None:
        check(self)
        self.own()

    def own(self) -> list[tuple[float, float]]:
        """The visitor's points. The list is empty if the visitor gave none.

        Raises:
            ValueError: the text is not a list of points.
        """
        words = [word.split(",") for word in self.points.split(";") if word.strip()]
        try:
            found = [(float(x), float(y)) for x, y in words]
        except ValueError:
            found = []
        ok = 3 <= len(found) <= MOST_POINTS and all(abs(v) <= REACH for p in found for v in p)
        allowed = (
            f"3 to {MOST_POINTS} points such as -1,0; 0.5,1.2; 1,0, with x and y from "
            f"{-REACH} to {REACH}"
        )
        require(ok or not words, "points", self.points, allowed)
        return found


@dataclass(frozen=True)
class Between:
    """What lies between noises and between pictures."""

    model: str = setting("mnist", "a model's name or path", label="Model")
    label: int = setting(
        3, "the class by its number, if the model has classes", low=0, high=99, whole=True,
        label="Class",
    )  # fmt: skip
    picture: int = setting(
        0, "number of the first test picture", low=0, high=9_990, whole=True,
        label="Test picture",
    )  # fmt: skip
    own: str = setting(
        "", "a picture's file, in place of the first test picture", upload=True,
        label="Picture of yours, in place of the first test picture",
    )  # fmt: skip
    level: float = setting(
        0.6, "where two pictures are mixed, as a share of T", low=0.01, high=1, label="Mixed at"
    )
    weight: float = setting(
        0.5, "weight of the second picture", low=0, high=1, label="Weight of the mix"
    )
    seed: int = setting(0, "the seed of the noise", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Learn:
    """A network that learns while you watch."""

    seconds: int = setting(120, "how long it learns", low=1, high=1800, whole=True, label="Seconds")
    lr: float = setting(
        4e-3, "how far a step of the training goes", low=1e-6, high=0.1, label="Learning rate"
    )
    pictures: int = setting(
        60_000, "digits that it sees", low=1, high=60_000, whole=True, label="Training pictures"
    )
    go_on: bool = setting(False, "go on from where the last one stopped", label="Go on")
    seed: int = setting(0, "the seed of all random numbers", **SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Recorded:
    """A training that is over."""

    model: str = setting("mnist", "a shipped model", label="Model")

    def __post_init__(self) -> None:
        check(self)
