"""Goes on with a run from the step that is shown: as it was, with a change, or in branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from torch import Tensor

from ddpm_demo.config import SAMPLERS, T_MAX, SampleConfig, SettingError, number, one_of, require
from ddpm_demo.diffusion import State
from ddpm_demo.inference import given
from ddpm_demo.inference.changes import FORKS
from ddpm_demo.inference.generate import go_on, play
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.controls import Selected, find, most_pictures
from ddpm_demo.ui.generate.asked_change import KEEP, Place, breakpoints, change_text
from ddpm_demo.ui.generate.handlers import require_time, show, stopping
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.runs import runs
from ddpm_demo.ui.server.settings import GPU

WAYS = ("step", "on", "to", "branch", "again")
AGAIN = "The server no longer has this step. It computes the run again…"


@GPU
@friendly
def proceed(
    way: str, visitor: str, own: Mapping[str, str], place: Any, until: Any, *form: Any
) -> Iterator[Any]:
    """Go on from the step that the page shows.

    Args:
        way: "step": one step; "on": to the end; "to": down to t; "branch": several continuations of
            one picture; "again": the whole run, unchanged. All but "again" stop at breakpoints.
        until: the t of "to".
        form: kind of change, its value, whether at this step only, breakpoints, number of branches,
            and whether these follow DDPM where the sampler adds no noise.
    """
    at = Place.read(place)
    one_of("way", way, WAYS)
    selected, spec = _run_of(at, own)
    config, made = spec.sample, list(spec.interventions)
    require_time(selected, config)
    options = {**_options(), "given": given.read(spec.pictures, selected.checkpoint.model.config)}
    if way == "again":
        steps = play(selected.checkpoint, config, made, **options)
        yield from show(visitor, selected, spec, steps)
        return
    stops = breakpoints(form[3])
    record, state = yield from _state_at(at, selected, spec, options)
    require(state.t > 0, "step", "the last", "before the last", "move the timeline back first")
    spec = yield from _changed(way, at, selected, spec, state, form)
    options["given"] = given.read(spec.pictures, selected.checkpoint.model.config)
    more = spec.interventions[len(made) :]
    steps = go_on(selected.checkpoint, config, made, more, state, **options)
    forks = any(change.startswith("fork=") for change in more)  # other pictures than before
    past = None if forks else record
    limit = {"step": state.t - 1, "to": until}.get(way)
    if way == "to":
        number("t at the end", until, 0, state.t - 1, whole=True)
    ends = [t for t in stops if t < state.t] + ([] if limit is None else [limit])
    since = {"id": at.run, "step": state.index}
    yield from show(visitor, selected, spec, stopping(steps, ends), past, since)


def _options() -> dict[str, Any]:
    return {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}


def _run_of(at: Place, own: Mapping[str, str]) -> tuple[Selected, RunSpec]:
    """The model and the settings of the run on the page.

    Raises:
        ValueError: the page asks for something that isn't allowed.
    """
    selected = find(at.meta.get("model"), own)
    spec = RunSpec.from_metadata(at.meta, selected.checkpoint.classes)
    most = most_pictures(selected.facts)
    number("number of pictures", spec.sample.n, 1, most, whole=True)
    return selected, spec


def _state_at(
    at: Place, selected: Selected, spec: RunSpec, options: Mapping[str, Any]
) -> Generator[str, None, tuple[Record, State]]:
    """Return the run's record, and its state at the step shown. Yield what to show meanwhile."""
    record = runs.get(at.run)
    seen = record.before(at.step) if record else None
    if record and seen and seen.state.index == at.step:
        return record.past(at.step), seen.state
    made, record = spec.interventions, Record()
    if seen:
        steps = go_on(selected.checkpoint, spec.sample, made, (), seen.state, **options)
    else:
        steps = play(selected.checkpoint, spec.sample, made, **options)
    for step in record.watch(steps):
        if step.index >= at.step and step.state:
            return record, step.state
        yield player.starting(AGAIN)
    raise SettingError("step", at.step, "a step of this run")


def _changed(
    way: str, at: Place, selected: Selected, spec: RunSpec, state: State, form: Sequence[Any]
) -> Generator[str, None, RunSpec]:
    """Return the run with the form's changes from a step on. Yield what to show meanwhile."""
    kind, value, once, _, count, switch = form
    # All branches continue one picture, so a drawing changes all of them.
    place = dataclasses.replace(at, one=None) if way == "branch" else at
    more = change_text(kind, value, once, state.t, place, selected.checkpoint.classes)
    if kind == KEEP:
        end = yield from _end(at, selected, spec, state)
        more = [f"{more[0]}:{len(spec.pictures)}"]
        spec = dataclasses.replace(spec, pictures=(*spec.pictures, given.write(end)))
        if way != "branch" and len(state.x) > 1:
            more.append(f"fork=1:{state.t}:{_one(at, state)}")
    if way == "branch":
        more += _branches(spec.sample, at, state, count, bool(switch))
    return dataclasses.replace(spec, interventions=(*spec.interventions, *more))


def _end(
    at: Place, selected: Selected, spec: RunSpec, state: State
) -> Generator[str, None, Tensor]:
    """Return how the enlarged picture ends, (1, C, H, W). Yield what to show meanwhile."""
    record = runs.get(at.run)
    seen = record.before(T_MAX) if record else None
    if seen and seen.state.t == 0:
        state = seen.state
    else:
        known = given.read(spec.pictures, selected.checkpoint.model.config)
        made, options = spec.interventions, {**_options(), "given": known}
        for step in go_on(selected.checkpoint, spec.sample, made, (), state, **options):
            yield player.starting("Running to the end, to keep its picture…")
            state = step.state or state
    one = _one(at, state)
    return state.x[one : one + 1]


def _one(at: Place, state: State) -> int:
    """The picture that is enlarged, or the first."""
    return min(at.one or 0, len(state.x) - 1)


def _branches(config: SampleConfig, at: Place, state: State, count: Any, switch: bool) -> list[str]:
    """The changes that make branches of one picture."""
    number("number of branches", count, 2, FORKS, whole=True)
    picture = _one(at, state)
    row = SAMPLERS[config.sampler]
    more = []
    if not row.adds_noise or (config.sampler == "ddim" and config.eta == 0):
        words = f"{row.label} adds no noise, so that each picture has one future."
        gr.Info(f"{words} The branches go on with DDPM." if switch else words)
        more = [f"sampler=ddpm:{state.t}"] * switch
    return [*more, f"fork={count}:{state.t}:{picture}"]
