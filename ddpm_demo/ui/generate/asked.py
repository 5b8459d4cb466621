"""What a visitor asks for in Generate: one field for each control, in the order in which the page
sends them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

TIMES = {0: "none", 2: "about 2 s", 5: "about 5 s", 15: "about 15 s", 60: "about 60 s"}


@dataclass(frozen=True)
class Asked:
    """The values that a page sent, not yet checked; or the controls of these values."""

    sampler: Any
    steps: Any
    n: Any
    seed: Any
    spacing: Any
    variance: Any
    eta: Any
    clip: Any
    labels: Any
    guidance: Any
    start: Any

    def all(self) -> list[Any]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]
