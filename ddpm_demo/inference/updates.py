"""The numbers of each update of a run, to show beside its pictures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_demo.config import SAMPLERS, SampleConfig, one_of
from ddpm_demo.diffusion import Intervention, Noise, Prediction, Schedule, Step
from ddpm_demo.inference.changes import GIVEN
from ddpm_demo.inference.generate import Start, play, timesteps_of
from ddpm_demo.models.checkpoint import Checkpoint

DIGITS = 9  # significant digits of a coefficient; float32 has fewer


class _Blind(NamedTuple):
    """A `Denoise` without a network. The coefficients of a line don't depend on the picture."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        return Prediction(torch.zeros_like(x_t), x_t)


LINE = ("z", "sampler", "eta", "keep")  # the changes that affect the lines of a run


def updates(
    checkpoint: Checkpoint, config: SampleConfig, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """The update line of each step of a run.

    The sampler runs with one pixel and no network, so this takes only some milliseconds.

    Args:
        changes: the changes of the run, as in `inference.changes`.

    Returns:
        A dictionary for JSON with "sampler", "clip", the "labels" of the pictures, "t" and
        "alpha_bar" of steps 0 to total, and "lines". Line k leads from step k to k + 1; it lists
        the name and coefficient of each `walk.Term`.
    """
    schedule = Schedule.from_config(checkpoint.diffusion)
    shown = [change for change in changes if change.partition("=")[0] in LINE]
    given = [torch.zeros(1, 1, 1, 1)] * GIVEN
    met: dict[int, Step] = {}
    for step in play(checkpoint, config, shown, given=given, run=_blind):
        met.setdefault(step.index, step)  # "keep" walks each step several times
    steps = list(met.values())
    return {
        "sampler": config.sampler,
        "clip": config.clip,
        "labels": config.label_of_each(),
        "t": [step.t for step in steps],
        "alpha_bar": [_short(float(schedule.alpha_bar[step.t])) for step in steps],
        "lines": [[(term.name, _short(term.coefficient)) for term in s.line] for s in steps[1:]],
    }


def _blind(
    checkpoint: Checkpoint,
    config: SampleConfig,
    *,
    state: Start,
    interventions: Sequence[Intervention],
    **_: Any,
) -> Iterator[Step]:
    """Like `generate`, with one pixel and no network."""
    sampler = SAMPLERS[config.sampler]
    steps: Iterator[Step] = sampler(
        _Blind(Schedule.from_config(checkpoint.diffusion)),
        torch.zeros(1, 1, 1, 1) if state.state is None else state.state,
        timesteps_of(checkpoint, config),
        noise=Noise("gaussian", [0]),
        interventions=interventions,
        **{name: getattr(config, name) for name in sampler.options},
    )
    return steps


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def code(name: Any) -> tuple[str, str]:
    """The source code of a sampler as it runs here, and its file.

    Raises:
        ValueError: there is no such sampler.
    """
    one_of("sampler", name, tuple(SAMPLERS))
    sampler = SAMPLERS[name]
    return inspect.getsource(sampler.function), sampler.source.partition(":")[0].replace(
        ".", "/"
    ) + ".py"
