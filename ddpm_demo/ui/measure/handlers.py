"""What the tab "Measure" does: the distance of some samples from a model's data, and bits/dim."""

from __future__ import annotations

import html
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np
import torch

from ddpm_demo.config import SAMPLERS, counted, require
from ddpm_demo.data import Images
from ddpm_demo.evaluation.bounds import Bound, BoundConfig, model_bound
from ddpm_demo.evaluation.features import Summary, summarise
from ddpm_demo.evaluation.metrics import DATA_KEPT
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.inference.timing import spoken
from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.bar import bar
from ddpm_demo.ui.components.controls import find
from ddpm_demo.ui.measure import link, report
from ddpm_demo.ui.measure.asked import IMAGES, PANELS, Asked
from ddpm_demo.ui.measure.plans import PAGE, Judged, Plan, offer, plan
from ddpm_demo.ui.measure.report import Report
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU
from ddpm_demo.ui.server.work import EVERY, give_way, loading, shown, sparing

Said = tuple[Any, Any, Any, Any]  # for player, line, result, and the report that is kept


def say(screen: Any = None, line: Any = None, result: Any = None, kept: Any = None) -> Said:
    """Update parts of the page. What is not given stays as it is."""
    screen, line, result, kept = (
        gr.skip() if part is None else part for part in (screen, line, result, kept)
    )
    return screen, line, result, kept


IDLE = say()  # where Stop may take effect


def most_seconds() -> float:
    """The most seconds of a measurement, because all visitors share the lane."""
    return settings.most_seconds(settings.LANE_MINUTES, 60)


def how_long(own: Mapping[str, str], name: Any, *values: Any) -> str:
    """The line below the button: how long it takes, or why it can't be measured."""
    try:
        seconds, most = plan(find(name, own), Asked(*values)).seconds(), most_seconds()
    except (ValueError, OSError, FloatingPointError) as error:
        return html.escape(str(error))
    if seconds > most:
        return f"About {spoken(seconds)}: more than the limit of {spoken(most)}."
    return f"About {spoken(seconds)} on this computer."


@friendly
def chosen(own: Mapping[str, str], name: Any, held: Any, *seen: bool) -> Iterator[Any]:
    """Updates of the controls for a model, and of the line that says what it can't have.

    Args:
        held: the model of a link. Its values stay.
        seen: the tab was open before, so nothing changes.
    """
    if any(seen):
        return
    options, why = offer(find(name, own))
    said = held["values"] if held and held["model"] == name else {}
    for field, value in said.items():
        getattr(options, field)["value"] = value
    yield [*(gr.update(**o) for o in options.all()), gr.update(**why), *(True for _ in seen)]


def query(own: Mapping[str, str], name: Any, *values: Any) -> Any:
    """The address's query for the controls. It stays as it is if they measure nothing."""
    try:
        selected, asked = find(name, own), Asked(*values)
        plan(selected, asked)
        usual = offer(selected)[0]
    except (ValueError, TypeError, OSError):
        return gr.skip()
    if name in own:  # only this page has it
        return ""
    said = {k: v["value"] for k, v in vars(usual).items() if "value" in v} | {"images": IMAGES}
    return link.query_of(name, asked, said)


@GPU
@friendly
def _bound(source: str, x_0: torch.Tensor, terms: int) -> Iterator[Bound]:
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    config = BoundConfig(terms, batch_size=PAGE)
    yield from model_bound(runtime.model(source), x_0, config, **options)


def run(local: bool, before: Report | None, own: Mapping[str, str], *asked: Any) -> Iterator[Said]:
    """Measure, and stream player, line of progress, result, and the report that is kept.

    Args:
        local: folders of this disk are allowed.
        before: the last run, to show beside this one.
        asked: the name of the model, and the fields of `Asked`.

    Raises:
        gr.Error: a value is bad, or the data can't be had. The line says so, too.
    """
    try:
        yield from sparing(friendly(_run)(local, before, own, *asked), IDLE)
    except gr.Error as error:
        yield say(line=error.message)
        raise


def _run(
    local: bool, before: Report | None, own: Mapping[str, str], name: Any, *values: Any
) -> Iterator[Said]:
    p = plan(find(name, own), Asked(*values))
    yield say(line="Getting ready…", result="")
    seconds, most = p.seconds(), most_seconds()
    if seconds > most:
        raise ValueError(
            f"This would take about {spoken(seconds)}, and the limit is {spoken(most)}. "
            "Take fewer samples or steps."
        )
    pictures = yield from _test_pictures(p, local)  # refused before the samples, if at all
    figures, details, n = [], [], ""
    if p.judged:
        summaries = yield from _sample(p)
        for judged, summary in zip(p.judged, summaries, strict=True):
            known = judged.reference or _reference(judged, pictures)
            figures += report.judged_figures(p, judged, summary, known)
            details.append(report.judged_details(p, judged, summary, known))
        n = f", {p.config.n:,} samples"
    if p.images and pictures is not None:
        x_0 = pictures.batch(torch.arange(min(len(pictures), p.images)))
        bound = yield from _bounded(p, x_0)
        figures.append(report.bound_figure(bound))
        details.append(report.bound_details(bound))
    c = p.config
    made = Report(
        f"{name}, {SAMPLERS[c.sampler].label}, {counted(c.steps, 'step')}{n}",
        figures,
        "\n".join(details),
    )
    yield say(line=f"Done: {html.escape(str(name))}.", result=made.html(before), kept=made)


def _test_pictures(p: Plan, local: bool) -> Generator[Said, None, Images | None]:
    """Read the test pictures, if they are needed."""
    if not p.images and all(j.reference for j in p.judged):
        return None
    checkpoint = p.selected.checkpoint
    config = checkpoint.model.config
    options = {"train": False, "local": local}
    steps = loading(checkpoint.info["dataset"], config.size, config.channels, **options)
    found = yield from shown(steps, lambda line: say(line=line))
    if p.against is not None:
        found = found.only(p.against)
    require(len(found) > 0, "number of test pictures in the data", 0, "one or more")
    return found


def _reference(judged: Judged, pictures: Images | None) -> Summary:
    """What a judge sees in the test pictures."""
    assert pictures is not None
    *_, summary = summarise(judged.judge, pictures.pixels, keep=DATA_KEPT * judged.keep)
    return summary


def _sample(p: Plan) -> Generator[Said, None, list[Summary]]:
    """Draw and show the samples. Returns what each judge sees in them."""
    c, model, window = p.config, p.selected.checkpoint.model.config, p.pages[0].n
    title = f"{p.selected.name} · {SAMPLERS[c.sampler].label}, {counted(c.steps, 'step')}"
    shape = (window, model.size, model.size, model.channels)
    about: dict[str, Any] = {"unit": "picture", "title": title}
    about["meta"] = RunSpec(p.selected.name, c).to_metadata(p.selected.checkpoint.classes)
    yield say(player.header(shape, c.n, panels=PANELS, **about), bar("Sampling…", 0))
    summaries = [Summary(c.n * judged.keep) for judged in p.judged]
    seen, latest = 0, np.empty((0, *shape[1:]), np.uint8)
    begun, sent = time.monotonic(), 0.0
    for page in p.pages:
        for _ in give_way():
            yield IDLE
        for step, pictures in runtime.draw(p.selected.source, page):
            now, frame, done = time.monotonic(), None, seen + page.n * step / c.steps
            if pictures is not None:
                seen += len(pictures)
                for judged, summary in zip(p.judged, summaries, strict=True):
                    _add(summary, judged, pictures)
                latest = np.concatenate([latest, pictures])[-window:]
                frame = player.frame(seen, None, latest, seconds=now - begun)
            elif now - sent < EVERY:
                yield IDLE
                continue
            sent, left = now, (now - begun) * (c.n / done - 1) if done else 0
            words = f"{seen} of {c.n} pictures"
            words += f", about {spoken(left)} to go" if left else ""
            yield say(frame, bar(words, done / c.n))
    return summaries


def _add(summary: Summary, judged: Judged, pictures: np.ndarray) -> None:
    summary.add(*judged.judge.extract(torch.from_numpy(pictures).permute(0, 3, 1, 2)))


def _bounded(p: Plan, x_0: torch.Tensor) -> Generator[Said, None, Bound]:
    """Compute the bound step by step, and return it."""
    sent = 0.0
    for bound in _bound(p.selected.source, x_0, p.terms):
        if time.monotonic() - sent >= EVERY:
            sent = time.monotonic()
            yield say(line=bar(f"Bits/dim: {bound.n} of {len(x_0)} test pictures", bound.done))
        else:
            yield IDLE
    return bound
