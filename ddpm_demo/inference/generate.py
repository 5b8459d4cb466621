"""Runs: from noise to pictures, with changes on the way, and on from any step of another run.

A walk can make some changes on its way. For others, such as another class, the run is divided into
stretches: one walk ends at the change, and the next walk begins from its state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_demo.config import SAMPLERS, SampleConfig, require
from ddpm_demo.diffusion import Denoiser, Intervention, Noise, Schedule, State, Step, Term
from ddpm_demo.inference.changes import Change, Now, ordered, read
from ddpm_demo.models.checkpoint import Checkpoint


class Start(NamedTuple):
    """Where a run begins, with its own seeds instead of those of its config.

    Attributes:
        state: the state of a step of another run; None begins from pure noise.
        seeds: the seed of each picture's noise.
    """

    state: State | None
    seeds: Sequence[int]


def timesteps_of(checkpoint: Checkpoint, config: SampleConfig) -> list[int]:
    """The falling timesteps of a run.

    A distilled model has its own lists, one for each number of steps that it learned.
    """
    few = checkpoint.info.get("few") or {}
    if config.timesteps is None and str(config.steps) in few and config.start is None:
        return list(few[str(config.steps)])
    return Schedule.from_config(checkpoint.diffusion).chosen(config)


def generate(
    checkpoint: Checkpoint,
    config: SampleConfig,
    *,
    bf16: bool = False,
    denoiser: Callable[..., Denoiser] = Denoiser,
    interventions: Sequence[Intervention] = (),
    state: State | Start | None = None,
) -> Iterator[Step]:
    """The steps of one run, on the device that the checkpoint's network is on.

    Args:
        bf16: run the network under bfloat16 autocast.
        denoiser: makes the denoiser. `batching.BatchedDenoiser` shares its passes with other runs.
        interventions: what to change on the way (see `diffusion.interventions`).
        state: the state of a step of another run. The run goes on from there, not from noise.

    Raises:
        ValueError: there are more steps than the model's T, or the model lacks a label. The call
            itself raises it, not the first step.
    """
    model, diffusion = checkpoint.model.config, checkpoint.diffusion
    for label in config.labels or ():
        allowed, why = f"a class of the model, 0 to {model.num_classes - 1}", ""
        if not model.num_classes:
            allowed, why = "left out", "the model has no classes"
        require(label < model.num_classes, "label", label, allowed, why)
    device = next(checkpoint.model.parameters()).device
    labels = config.label_of_each()
    y = None if labels is None else torch.tensor(labels, device=device)
    denoise = denoiser(
        checkpoint.model, diffusion, clip=config.clip, y=y, guidance=config.guidance, bf16=bf16
    )
    seeds: Sequence[int] = range(config.seed, config.seed + config.n)
    if isinstance(state, Start):
        state, seeds = state
    noise = Noise(diffusion.noise, seeds)
    x_T = noise.draw((config.n, model.channels, model.size, model.size)).to(device)
    denoise.interventions = interventions
    sampler = SAMPLERS[config.sampler]
    return sampler(
        denoise,
        x_T if state is None else state,
        timesteps_of(checkpoint, config),
        noise=noise,
        interventions=interventions,
        **{name: getattr(config, name) for name in sampler.options},
    )


def play(
    checkpoint: Checkpoint,
    config: SampleConfig,
    texts: Sequence[str] = (),
    *,
    given: Sequence[Tensor] = (),
    **options: Any,
) -> Iterator[Step]:
    """The steps of a run with changes. Up to the first change, they are `generate`'s, bit for bit.

    Args:
        texts: the changes, as in `inference.changes`.
        given: the pictures that the changes need, (1, C, H, W) in [-1, 1].
        options: the options of `generate`, and `run`, a function to call instead of `generate`.

    Raises:
        ValueError: a change is not allowed. The call itself raises it, not the first step.
    """
    now = Now.first(config, given)
    return _stretches(checkpoint, now, ordered(read(texts, now)), 0, None, **options)


def go_on(
    checkpoint: Checkpoint,
    config: SampleConfig,
    made: Sequence[str],
    more: Sequence[str],
    state: State,
    *,
    given: Sequence[Tensor] = (),
    **options: Any,
) -> Iterator[Step]:
    """Go on from a step of an earlier run. Without new changes, it repeats that run bit for bit.

    Args:
        made: the changes of the earlier run.
        more: new changes.
        state: the state of the earlier run at that step.
        given, options: as for `play`.

    Raises:
        ValueError: as for `play`.
    """
    now = Now.first(config, given)
    changes = read([*made, *more], now)
    old, new = ordered(changes[: len(made)]), changes[len(made) :]
    done = sum(change.t >= state.t for change in old)
    return _stretches(
        checkpoint, now, [*old[:done], *ordered([*old[done:], *new])], done, state, **options
    )


def _stretches(
    checkpoint: Checkpoint,
    now: Now,
    changes: Sequence[Change],
    done: int,
    state: State | None,
    run: Callable[..., Iterator[Step]] = generate,
    **options: Any,
) -> Iterator[Step]:
    """Play a run from `state`. `changes` are in order; the first `done` of them have happened."""
    way = timesteps_of(checkpoint, now.config)
    for change in changes:
        if change.name == "draw":
            require(change.t in way, "t of draw", change.t, "one of the run's own steps")
    for change in changes[:done]:
        now = change.settings(now)
    turns = [change for change in changes[done:] if change.turns]

    def stretch(now: Now, state: State | None) -> Iterator[Step]:
        start = Start(state, now.seeds)
        hooks = [hook for change in changes if (hook := change.hook(now))]
        return run(checkpoint, now.config, interventions=hooks, state=start, **options)

    return _turned(stretch, turns, now, state, stretch(now, state))


def _turned(
    stretch: Callable[[Now, State | None], Iterator[Step]],
    turns: Sequence[Change],
    now: Now,
    state: State | None,
    ahead: Iterator[Step],
) -> Iterator[Step]:
    """Yield one stretch after the other.

    The step at which a stretch ends belongs to the next stretch, which computes it anew. A stretch
    that would end at its first step is skipped, without a call of the network.
    """
    line: tuple[Term, ...] = ()
    for turn in turns:
        if state is None or state.t > turn.t:
            for step in ahead:
                if step.t <= turn.t:
                    break
                yield step
            else:
                return
            state, line = step.state, step.line
        assert state
        state, now = turn.state(state), turn.settings(now)
        if turn.name == "fork":  # the pictures change, so the line no longer fits
            line = ()
        ahead = _begun(stretch(now, state), line)
    yield from ahead


def _begun(steps: Iterator[Step], line: tuple[Term, ...]) -> Iterator[Step]:
    """Yield the steps of a stretch, and give the first one the line that led to it."""
    for k, step in enumerate(steps):
        yield step if k or not line else dataclasses.replace(step, line=line)
