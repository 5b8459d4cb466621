"""Runs with changes, and going on from any of their steps.

A change that a walk can't make on the way, such as another class, ends one stretch of the run; the
next one begins from its state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm_demo.config import SampleConfig
from ddpm_demo.config.setting import require
from ddpm_demo.diffusion.walk import State, Step, Term
from ddpm_demo.inference.changes import Change, Now, ordered, read
from ddpm_demo.inference.generate import Start, generate, timesteps_of
from ddpm_demo.models.checkpoint import Checkpoint


def play(
    checkpoint: Checkpoint,
    config: SampleConfig,
    texts: Sequence[str] = (),
    *,
    given: Sequence[Tensor] = (),
    **options: Any,
) -> Iterator[Step]:
    """A run with its changes. Up to the first one it is `generate`, bit for bit.

    Args:
        texts: the changes, see `inference.changes`.
        given: the pictures that they need, (1, C, H, W) in [-1, 1].
        options: of `generate`; and `run`, what is called in its place.

    Raises:
        ValueError: a change that is not allowed. Raised by the call itself.
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
    """From a step of a run with the changes `made`, with `more` of them.

    With no more, it is that run again, bit for bit.

    Args:
        state: of that run, as it goes on from its step.
        given, options, raises: as of `play`.
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
    """Args: changes: in the order in which they are made, of which the state has `done`."""
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
    """One stretch after the other. Each ends at a step of which its own answer is not used; where
    one would end as it begins, the network is not asked for it."""
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
        if turn.name == "fork":  # whose pictures are others
            line = ()
        ahead = _begun(stretch(now, state), line)
    yield from ahead


def _begun(steps: Iterator[Step], line: tuple[Term, ...]) -> Iterator[Step]:
    """A stretch, whose first step has the line that led to it."""
    for k, step in enumerate(steps):
        yield step if k or not line else dataclasses.replace(step, line=line)
