"""What can be asked of the experiments: their settings, read by the page, commands and links."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_demo.config import SEED_MAX, check, require, setting, whole_numbers

SEED = {"low": 0, "high": SEED_MAX - 1000, "whole": True, "label": "Seed"}


@dataclass(frozen=True)
class Race:
    """The race of the samplers."""

    model: str = setting("mnist", "a model's name or path", label="Model")
    calls: tuple[int, ...] = setting(
        (5, 10, 20, 50), "how often the network is asked, a column each", label="Calls"
    )
    seed: int = setting(0, "picture k has the seed SEED + k", **SEED)

    def __post_init__(self) -> None:
        check(self)
        ok = whole_numbers(self.calls, 1, 200) and 1 <= len(self.calls) <= 6
        require(ok, "calls", self.calls, "one to six whole numbers from 1 to 200")
