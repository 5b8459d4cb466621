"""What a visitor asks for in Measure, and what the page and its handlers both know."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddpm_demo.evaluation.metrics import METRICS

FD, BPD = "fd", "bpd"
ALL = "all classes"
PANELS = ("The latest samples",)
N, IMAGES, TERMS = 128, 8, 50  # usual: samples, test pictures and terms of bits/dim
N_MOST, IMAGES_MOST = 2000, 200


def metrics() -> dict[str, str]:
    """The words of the metrics that the tab offers: the rows of `METRICS` that have any."""
    return {name: metric.label for name, metric in METRICS.items() if metric.label}


@dataclass(frozen=True)
class Asked:
    """The values that a page sent, not yet checked; or the controls of these values.

    Attributes:
        wanted: names of `metrics()`.
        against: compare with this class of the test pictures, or with `ALL`.
        images, terms: of bits/dim.
    """

    wanted: Any
    n: Any
    sampler: Any
    steps: Any
    labels: Any
    guidance: Any
    against: Any
    images: Any
    terms: Any

    def all(self) -> list[Any]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]
