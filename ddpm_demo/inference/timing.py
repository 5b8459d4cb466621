"""How long a run takes, and which run fits a time, from how long one call of the network takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddpm_demo.catalog import SAMPLERS
from ddpm_demo.config import SPACINGS, T_MAX, SampleConfig, from_dict
from ddpm_demo.config.setting import number, one_of
from ddpm_demo.diffusion.denoiser import Denoiser
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.models.checkpoint import Checkpoint

SIZES = (1, 4, 16)  # of the batches that are timed


def measure(
    checkpoint: Checkpoint,
    denoiser: Callable[..., Denoiser] = Denoiser,
    patience: float = 2.0,
    *,
    bf16: bool = False,
) -> dict[int, float]:
    """Seconds of one call of a network, by the number of pictures.

    Of a few calls the quickest counts: the first of a size also lays out weights, and a browser
    that opens takes the cores. So there are two at least. More pictures take no longer than as many
    calls with fewer.

    Args:
        denoiser: makes what runs ask (see `generate.generate`).
        patience: seconds from the first call's end, after which no more are begun.
    """
    model, process = checkpoint.model.config, checkpoint.diffusion
    device = next(checkpoint.model.parameters()).device
    denoise = denoiser(checkpoint.model, process, bf16=bf16)
    seconds: dict[int, float] = {}
    begin = 0.0
    for n in SIZES:
        noise = Noise(process.noise, range(n))
        x = noise.draw((n, model.channels, model.size, model.size)).to(device)
        for _ in range(3):
            start = time.perf_counter()
            if begin and start - begin > patience:
                return seconds
            denoise(x, torch.full((n,), process.T))
            took = time.perf_counter() - start
            begin = begin or start + took
            seconds[n] = min(took, per_call(seconds, n)) if seconds else took
    return seconds


def per_call(seconds: Mapping[int, float], n: int) -> float:
    """Seconds of a call with n pictures: on a straight line between the sizes that were measured,
    and in proportion to n beyond the largest."""
    most = max(seconds)
    return float(np.interp(n, list(seconds), list(seconds.values()))) * max(1, n / most)


def pictures(config: SampleConfig) -> int:
    """Pictures in a call of the network; guidance asks for each with and without its class."""
    return config.n * (1 if config.labels is None or config.guidance == 1 else 2)


def estimate(config: SampleConfig, seconds: Mapping[int, float]) -> float:
    """Seconds of a run, from those of its calls."""
    return SAMPLERS[config.sampler].calls(config.steps) * per_call(seconds, pictures(config))


@dataclass(frozen=True)
class Measured:
    """How well a model is sampled in some way: a row of its checkpoint's `info["samplers"]`."""

    sampler: str
    spacing: str
    steps: int
    calls: int  # of the network, for each picture
    distance: float  # of many samples from the data; less is better

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, tuple(SAMPLERS))
        one_of("spacing", self.spacing, SPACINGS)
        number("steps", self.steps, 1, T_MAX, whole=True)
        number("calls", self.calls, 1, 2 * T_MAX, whole=True)
        number("distance", self.distance, 0, 1e9)


def measured(checkpoint: Checkpoint) -> list[Measured]:
    """The ways of sampling that were measured for a model; none if its checkpoint names none.

    Raises:
        ValueError: the checkpoint names a way that there isn't.
    """
    return [from_dict(Measured, row) for row in checkpoint.info.get("samplers") or ()]


def plan(
    seconds: float,
    ms_per_call: float,
    most: int,
    own: SampleConfig | None = None,
    table: Sequence[Measured] = (),
) -> SampleConfig:
    """The run that makes the best of about so many seconds.

    A model is sampled as it does best if there is time for as many steps as it then takes, and with
    more steps if there is time for more. For less time, its table says which way measured best. If
    it has none, or none that fits, the model's own sampler takes fewer steps.

    Args:
        ms_per_call: milliseconds of one call of the network, of as many pictures as the run has.
        most: steps that the run can have: T, or t of the first step.
        own: how the model is best sampled; the defaults if not given.
        table: how well other ways measured.
    """
    own = own or SampleConfig()
    sampler, affordable = SAMPLERS[own.sampler], int(1000 * seconds / ms_per_call)
    if affordable >= sampler.calls(own.steps):
        return own.but(steps=min(max(sampler.steps(affordable), own.steps), most))
    fit = [row for row in table if row.calls <= affordable and row.steps <= most]
    if fit:
        best = min(fit, key=lambda row: (row.distance, row.calls))
        return own.but(sampler=best.sampler, spacing=best.spacing, steps=best.steps)
    return own.but(steps=min(sampler.steps(affordable), most))


def spoken(seconds: float) -> str:
    """A time as one would say it: "0.04 s", "3.2 s", "48 s", "12 min", "2.5 h"."""
    if seconds < 0.095:
        return f"{max(seconds, 0.01):.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
