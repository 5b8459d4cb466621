"""What the tab "Generate" does: runs, how long they take, and what a model's controls are."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from ddpm_demo.config import SAMPLERS, SampleConfig, counted, number, one_of, parse_timesteps
from ddpm_demo.diffusion import Step
from ddpm_demo.inference import given, timing
from ddpm_demo.inference.changes import words_of
from ddpm_demo.inference.generate import play
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.inference.updates import updates
from ddpm_demo.models.zoo import available
from ddpm_demo.ui.components import controls, player
from ddpm_demo.ui.components.controls import Selected, find, most_pictures
from ddpm_demo.ui.components.pad import drawn
from ddpm_demo.ui.generate import link
from ddpm_demo.ui.generate.asked import TIMES, Asked
from ddpm_demo.ui.generate.asked_change import breakpoints
from ddpm_demo.ui.generate.swaps import offered, swapped
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.runs import runs
from ddpm_demo.ui.server.settings import GPU

REFUSED = (ValueError, OSError, FloatingPointError, gr.Error)
SKIP = gr.skip()
BROKEN = "A change of this run failed, so the run ends here. What has come so far stays."


def sample_config(selected: Selected, asked: Asked) -> SampleConfig:
    """The run that the controls, or a raw API call, ask for.

    Raises:
        ValueError: the app doesn't allow a value.
    """
    number("number of pictures", asked.n, 1, most_pictures(selected.facts), whole=True)
    best = selected.best
    start = best.start if asked.start == _start(selected) else asked.start
    return best.but(
        sampler=asked.sampler,
        steps=asked.steps,
        n=asked.n,
        seed=asked.seed,
        spacing=asked.spacing,
        variance=asked.variance,
        eta=asked.eta,
        clip=bool(asked.clip),
        labels=selected.facts.parse_classes(controls.words_of(asked.labels)),
        guidance=asked.guidance,
        start=start,
    )


def _start(selected: Selected) -> int:
    """The t at which a run begins by the model's own settings."""
    return selected.best.start or selected.checkpoint.diffusion.T


def most_seconds() -> float:
    """The most seconds of a run. On one's own machine, there is no limit."""
    return settings.most_seconds(settings.RUN_MINUTES, 5 if settings.strangers else math.inf)


def _seconds(selected: Selected, config: SampleConfig) -> float:
    return timing.estimate(config, runtime.seconds(selected.source))


def require_time(selected: Selected, config: SampleConfig) -> None:
    """Raise `ValueError` if a run would take too long."""
    most = most_seconds()
    if most == math.inf or settings.ZERO:  # that has a limit of its own
        return
    seconds = _seconds(selected, config)
    if seconds > most:
        raise ValueError(
            f"This run would take about {timing.spoken(seconds)}, and the limit here is "
            f"{timing.spoken(most)}. Take fewer steps or pictures."
        )


@GPU
@friendly
def run(visitor: str, own: Mapping[str, str], name: Any, *values: Any) -> Iterator[Any]:
    """Stream a run to the player.

    Args:
        values: the fields of `Asked`, breakpoints, and changes as `inference.changes` takes them.
    """
    selected, (*asked, breaks, texts) = find(name, own), values
    config = sample_config(selected, Asked(*asked))
    require_time(selected, config)
    stops, spec = breakpoints(breaks), RunSpec(selected.name, config, link.changes_of(texts))
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    steps = play(selected.checkpoint, config, spec.interventions, **options)
    if not spec.interventions:  # they may take time of their own
        steps = runtime.timed(selected.source, config, steps)
    T = selected.checkpoint.diffusion.T
    yield from show(visitor, selected, spec, stopping(steps, [t for t in stops if t < T]))


def stopping(steps: Iterable[Step], stops: Sequence[int]) -> Iterator[Step]:
    """Yield steps down to the first one at or below a stop."""
    for step in steps:
        yield step
        if step.t <= max(stops, default=0):
            return


@GPU
@friendly
def from_picture(
    visitor: str, own: Mapping[str, str], source: Any, name: Any, *values: Any
) -> Iterator[Any]:
    """Noise a picture up to each t of a row, and stream how it is denoised (SDEdit).

    Args:
        source: JSON of the page: `picture`, a data URI, and `t`, a list of them.
    """
    picture, words = drawn(source)
    selected = find(name, own)
    checkpoint = selected.checkpoint
    ts = parse_timesteps(words, checkpoint.diffusion.T)
    config, change = given.begun(checkpoint, sample_config(selected, Asked(*values)), ts)
    require_time(selected, config)
    known = given.fitted(picture, checkpoint.model.config)
    spec = RunSpec(selected.name, config, (change,), (given.write(known),))
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    steps = play(checkpoint, config, [change], given=[known], **options)
    yield from show(visitor, selected, spec, steps)


def show(
    visitor: str,
    selected: Selected,
    spec: RunSpec,
    steps: Iterator[Step],
    past: Record | None = None,
    since: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """Stream the steps of a run to the player, and keep them for its visitor.

    Args:
        past: the record of the run, if the steps go on from it.
        since: the run and the step of the page's from which this one goes on.
    """
    record = past or Record()
    classes, changes = selected.checkpoint.classes, spec.interventions
    row = spec.sample.n if spec.pictures and spec.sample.n <= given.ROW else None
    yield from player.stream(
        record.watch(_unbroken(steps) if changes else steps),
        panels=player.STEP_PANELS,
        sparing=not runtime.has_gpu(),  # on a CPU, messages take their time from the network
        title=_title(selected, spec),
        meta=spec.to_metadata(classes),
        updates=updates(selected.checkpoint, spec.sample, changes),
        id=runs.begin(visitor, record),
        changed=", ".join(_changes(spec)),
        since=since,
        columns=row,
    )
    last = record.steps[max(record.steps)].state
    if last.t:
        yield player.note(f"Paused at t = {last.t}. Go on from here, or change something first.")


def _unbroken(steps: Iterator[Step]) -> Iterator[Step]:
    """If a change fails in a way that we didn't foresee, end its run with a sentence."""
    try:
        yield from steps
    except REFUSED:
        raise
    except Exception as error:
        traceback.print_exception(error)
        raise gr.Error(BROKEN, print_exception=False) from error


def _title(selected: Selected, spec: RunSpec) -> str:
    config = spec.sample
    words = selected.facts.class_words(config.labels)
    class_ = {"any": "", "each": "each class in turn"}.get(words, words.replace(",", ", "))
    parts = [selected.name, class_, SAMPLERS[config.sampler].label, counted(config.steps, "step")]
    if config.labels is not None and config.guidance != 1:
        parts.append(f"guidance {config.guidance:g}")
    return " · ".join(filter(None, [*parts, f"seed {config.seed}", *_changes(spec)]))


def _changes(spec: RunSpec) -> list[str]:
    return words_of(spec.interventions)


def how_long(own: Mapping[str, str], name: Any, *values: Any) -> str:
    """The line below the button. It is empty if there is no such run."""
    try:
        selected = find(name, own)
        config = sample_config(selected, Asked(*values))
        seconds, most = _seconds(selected, config), most_seconds()
    except REFUSED:
        return ""
    said = f"About {timing.spoken(seconds)}"
    if seconds > most:
        return f"{said}: more than the limit of {timing.spoken(most)}."
    pictures, steps = counted(config.n, "picture"), counted(config.steps, "step")
    return f"{said} for {pictures} in {steps}."


def fit(own: Mapping[str, str], name: Any, seconds: Any, *values: Any) -> tuple[Any, Any, Any]:
    """Sampler, steps and spacing for the chosen time. Without one, they stay."""
    try:
        if not (isinstance(seconds, int) and seconds > 0 and TIMES.get(seconds)):
            return SKIP, SKIP, SKIP
        selected, asked = find(name, own), Asked(*values)
        number("start", asked.start, 1, selected.checkpoint.diffusion.T, whole=True)
        config = sample_config(selected, asked)
        each = timing.per_call(runtime.seconds(selected.source), timing.pictures(config))
        table = timing.measured(selected.checkpoint)
        best = timing.plan(seconds, 1000 * each, asked.start, selected.best, table)
        return best.sampler, best.steps, best.spacing
    except REFUSED:
        return SKIP, SKIP, SKIP


@friendly
def chosen(own: Mapping[str, str], name: Any, n: Any, held: Any) -> Iterator[Any]:
    """Update what changes with the model (see `link.shown`), unless the page has its settings.

    Args:
        held: the model whose settings the page shows. A link brings both, and Gradio may report one
            change twice.
    """
    selected = find(name, own)
    values = link.shown(selected.facts, selected.best, n)
    yield *([SKIP] * len(values) if name == held else values), name


def query(own: Mapping[str, str], name: Any, *values: Any) -> Any:
    """The address's query for the controls. It stays as it is if they make no run.

    Args:
        values: the fields of `Asked`, and changes.
    """
    try:
        selected, (*asked, texts) = find(name, own), values
        config = sample_config(selected, Asked(*asked))
        spec = RunSpec(name, config, link.changes_of(texts))
    except REFUSED:
        return SKIP
    return link.query_of(spec, selected.facts)


@friendly
def swap(own: Mapping[str, str], words: Any, name: Any, *values: Any) -> Iterator[Any]:
    """The controls with one setting swapped: as `link.read` returns them."""
    one_of("model of a swap", name, tuple(available()))
    one_of("swap", words, tuple(offered(name)))
    selected = find(name, own)
    spec = RunSpec(name, sample_config(selected, Asked(*values)))
    yield swapped(spec, selected.facts, words)
