"""Runs with changes, and runs that go on from any step of another.

A walk can make some changes on its way. For others, such as another class, the run is divided into
stretches: one walk ends at the change, and the next walk begins from its state.
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
