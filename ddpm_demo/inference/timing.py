"""Estimates how long a run takes, and which run fits a time, from the time of one network call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddpm_demo.config import SAMPLERS, SPACINGS, T_MAX, SampleConfig, from_dict, number, one_of
from ddpm_demo.diffusion import Denoiser, Noise
from ddpm_demo.models.checkpoint import Checkpoint

SIZES = (1, 4, 16)  # the sizes of the batches that are timed


def measure(
    checkpoint: Checkpoint,
    denoiser: Callable[..., Denoiser] = Denoiser,
    patience: float = 2.0,
    *,
    bf16: bool = False,
) -> dict[int, float]:
    """Measure the seconds of one call of a network, by the number of pictures.

    The quickest of up to three calls counts, because the first call of a size also lays out
    weights, and a browser that opens may take the cores. A size can't take longer than the smaller
    sizes say: its pictures could run in several calls.

    Args:
        denoiser: makes the denoiser (see `generate.generate`).
        patience: begin no more calls this many seconds after the end of the first one.
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
    """Seconds of a call with n pictures.

    Between the measured sizes it interpolates linearly. Beyond the largest, time grows with n.
    """
    most = max(seconds)
    return float(np.interp(n, list(seconds), list(seconds.values()))) * max(1, n / most)


def sooner(seconds: Mapping[int, float], n: int, took: float) -> dict[int, float]:
    """Correct what was measured by a later call with n pictures.

    No size takes longer than the calls of n pictures that it needs. So what was measured while
    other programs had the cores becomes true again; a slower call changes nothing.
    """
    most = max(seconds)
    if n > most:
        n, took = most, took * most / n
    return {size: min(known, took * -(-size // n)) for size, known in seconds.items()}


def pictures(config: SampleConfig) -> int:
    """Pictures in a call of the network. Guidance runs each picture with and without its class."""
    return config.n * (1 if config.labels is None or config.guidance == 1 else 2)


def estimate(config: SampleConfig, seconds: Mapping[int, float]) -> float:
    """Estimate the seconds of a run from the seconds of one call, by the number of pictures."""
    return SAMPLERS[config.sampler].calls(config.steps) * per_call(seconds, pictures(config))


@dataclass(frozen=True)
class Measured:
    """The measured quality of one way to sample a model: a row of its `info["samplers"]`."""

    sampler: str
    spacing: str
    steps: int
    calls: int  # calls of the network for each picture
    distance: float  # distance of many samples from the data; less is better
    n: int | None = None  # of how many samples

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, tuple(SAMPLERS))
        one_of("spacing", self.spacing, SPACINGS)
        number("steps", self.steps, 1, T_MAX, whole=True)
        number("calls", self.calls, 1, 2 * T_MAX, whole=True)
        number("distance", self.distance, 0, 1e9)


def measured(checkpoint: Checkpoint) -> list[Measured]:
    """The ways to sample a model that were measured. The list is empty if there are none.

    Raises:
        ValueError: a row of the checkpoint is not valid.
    """
    return [from_dict(Measured, row) for row in checkpoint.info.get("samplers") or ()]


def plan(
    seconds: float,
    ms_per_call: float,
    most: int,
    own: SampleConfig | None = None,
    table: Sequence[Measured] = (),
) -> SampleConfig:
    """Plan the best run that takes about this many seconds.

    If there is time for the model's own settings, the run uses them, and takes more steps if there
    is time for more. Otherwise it uses the row of the table that measured best in this time. If no
    row fits, it uses the model's own sampler with fewer steps.

    Args:
        ms_per_call: milliseconds of one call of the network with all pictures of the run.
        most: the most steps that the run can have: T, or the t of the first step.
        own: the model's own settings; the general defaults if not given.
        table: other ways to sample the model, as they were measured.
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
    """A time in words: "0.04 s", "3.2 s", "48 s", "12 min", "2.5 h"."""
    if seconds < 0.095:
        return f"{max(seconds, 0.01):.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
