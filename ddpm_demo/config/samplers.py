"""The samplers, one row each. To add one, write its function and `register` a row.

The rest of the program reads only this row: `--help`, the app's choices, the estimate of a run's
time, and `evaluate`. This module imports nothing heavy. The first call of a sampler imports its
function, and torch with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampler:
    """A sampler.

    Attributes:
        name: its name in settings, on the command line and in files.
        label: its name on the page.
        does: what it does, in one sentence for the page.
        source: "module:function"; `diffusion.samplers` says what the function takes.
        options: the fields of `SampleConfig` that are options of this sampler.
        extra_calls: how many more calls of the network each step but the last makes.
        adds_noise: True if it can add noise; if not, x_T alone decides the picture.
    """

    name: str
    label: str
    does: str
    source: str
    options: tuple[str, ...] = ()
    extra_calls: int = 0
    adds_noise: bool = False

    def calls(self, steps: int) -> int:
        """The most calls of the network that this many steps make."""
        return steps + self.extra_calls * (steps - 1)

    def steps(self, calls: int) -> int:
        """The most steps that this many calls pay for; at least one."""
        return max(1, (calls + self.extra_calls) // (1 + self.extra_calls))

    @property
    def function(self) -> Callable[..., Any]:
        module, _, name = self.source.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the sampler. It returns an iterator of `diffusion.walk.Step`."""
        return self.function(*args, **options)


SAMPLERS: dict[str, Sampler] = {}


def register(sampler: Sampler) -> None:
    """Add a sampler to `SAMPLERS`."""
    SAMPLERS[sampler.name] = sampler


_ROOM = "ddpm_demo.diffusion.samplers"

for _row in (
    Sampler(
        name="ddpm",
        label="DDPM",
        does="Draws the next picture around the predicted one, with fresh noise at each step.",
        source=f"{_ROOM}.ddpm:ddpm",
        options=("variance",),
        adds_noise=True,
    ),
    Sampler(
        name="ddim",
        label="DDIM",
        does="Mixes the predicted picture and the predicted noise anew for the next t.",
        source=f"{_ROOM}.ddim:ddim",
        options=("eta",),
        adds_noise=True,
    ),
    Sampler(
        name="dpmpp_2m",
        label="DPM-Solver++",
        does="As DDIM, and looks ahead: it also uses the prediction of the step before.",
        source=f"{_ROOM}.dpmpp:dpmpp_2m",
    ),
    Sampler(
        name="dpmpp_2m_sde",
        label="SDE-DPM-Solver++",
        does="As DPM-Solver++, with fresh noise at each step.",
        source=f"{_ROOM}.dpmpp:dpmpp_2m_sde",
        adds_noise=True,
    ),
    Sampler(
        name="heun",
        label="Heun",
        does="Tries the step, asks the network again at its end, and takes the mean of both.",
        source=f"{_ROOM}.heun:heun",
        extra_calls=1,
    ),
    Sampler(
        name="unipc",
        label="UniPC",
        does="As DPM-Solver++, and corrects each step once the network has seen its end.",
        source=f"{_ROOM}.unipc:unipc",
    ),
):
    register(_row)
