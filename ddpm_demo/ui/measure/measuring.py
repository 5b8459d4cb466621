"""What the tab "Measure" does: the distance of some samples from a model's data, and bits/dim."""

from __future__ import annotations

import dataclasses
import html
import math
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np
import torch

from ddpm_demo import data
from ddpm_demo.config import SampleConfig, number, one_of, require
from ddpm_demo.evaluation import metrics, references
from ddpm_demo.evaluation.bounds import Bound, model_bound
from ddpm_demo.evaluation.classifier import Classifier
from ddpm_demo.evaluation.samples import bound_plots, bound_sentence, judge_of, pages
from ddpm_demo.inference import timing as budget
from ddpm_demo.inference.generate import defaults, metadata
from ddpm_demo.inference.labels import class_words, parse_classes, tuned_to
from ddpm_demo.media.plots import bar_plot
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.ui.components import player
from ddpm_demo.ui.generate.tab import SAMPLERS, class_choices, find, most_pictures
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runtime import GPU, bar, friendly
from ddpm_demo.ui.server.work import EVERY, give_way, loading, shown

N_MOST, IMAGES_MOST = 2000, 200
PAGE = 16  # pictures drawn, or calls of the bound, at once: Stop and the pictures shown are as fine
FD, BPD = "fd", "bpd"
LABELS = {FD: "Fréchet distance, by our classifier", BPD: "bits/dim, on test pictures"}
PANELS = ("Samples, the last ones",)
ALL = "all classes"
Said = tuple[Any, Any, Any]  # for player, line and result
IDLE: Said = gr.skip(), gr.skip(), gr.skip()  # where Stop may take effect


@dataclasses.dataclass(frozen=True)
class Plan:
    """A measurement that can be made, as far as that is known before it begins.

    Attributes:
        source: of the model, for `runtime.model`.
        config: of the samples; `n` of them.
        against: the class of the data that is compared with; None: all of them.
        judge, reference: for the Fréchet distance; None without it.
        images, terms: of the bound, None without it.
    """

    checkpoint: Checkpoint
    source: str
    config: SampleConfig
    against: str | None
    judge: Classifier | None
    reference: metrics.Summary | None
    images: int | None
    terms: int | None

    @property
    def pages(self) -> list[SampleConfig]:
        most = min(PAGE, most_pictures(self.checkpoint))
        return pages(self.config, most) if self.judge else []

    def seconds(self) -> float:
        """About how long it takes here."""
        each = runtime.seconds(self.source)
        found = sum(budget.estimate(page, each) for page in self.pages)
        calls = (self.images or 0) * (self.terms or 0)
        return found + calls / PAGE * budget.per_call(each, PAGE)


def _judge(checkpoint: Checkpoint, against: str | None) -> tuple[Classifier, metrics.Summary]:
    judge = judge_of(checkpoint)
    classes = judge.config.classes
    k = None if against is None else classes.index(against)
    return judge, references.read(judge, "test", k)


def classes_of(checkpoint: Checkpoint) -> list[str]:
    """The classes that samples can be compared with, each alone."""
    try:
        return list(judge_of(checkpoint).config.classes)
    except ValueError:
        return checkpoint.classes


def _require_bound(checkpoint: Checkpoint) -> None:
    noise, dataset = checkpoint.diffusion.noise, checkpoint.info.get("dataset")
    require(noise == "gaussian", "noise of the model", noise, "gaussian: Gaussians are compared")
    known = isinstance(dataset, str) and (dataset in data.NAMES or dataset.startswith("folder:"))
    require(known, "data of the model", dataset, f"{', '.join(data.NAMES)} or folder:PATH")


def why_not(checkpoint: Checkpoint) -> dict[str, str]:
    """The metrics that a model can't have, and why."""
    reasons = {}
    try:
        _judge(checkpoint, None)
    except ValueError as error:
        reasons[FD] = f"No Fréchet distance: {error}"
    try:
        _require_bound(checkpoint)
    except ValueError as error:
        reasons[BPD] = f"No bits/dim: {error}"
    return reasons


def plan(
    own: Mapping[str, str],
    name: Any,
    wanted: Any,
    n: Any,
    sampler: Any,
    steps: Any,
    label: Any,
    guidance: Any,
    against: Any,
    pictures: Any,
    terms: Any,
) -> Plan:
    """What the controls, or a raw API call, ask for; no data is read yet.

    Raises:
        ValueError: a value that is not allowed, or a metric that this model can't have.
    """
    checkpoint = find(name, own)
    require(isinstance(wanted, list) and len(wanted) > 0, "metrics", wanted, "one or more of them")
    for metric in wanted:
        one_of("metric", metric, (FD, BPD))
    labels = parse_classes(str(label), checkpoint.classes)
    one_of("class of the data", against, (ALL, *classes_of(checkpoint)))
    against = None if against == ALL else against
    judge = reference = None
    config = defaults(checkpoint)
    if FD in wanted:
        judge, reference = _judge(checkpoint, against)
        number("number of pictures", n, 1, N_MOST, whole=True)
        metrics.require_enough(n, judge.dim)
        config = config.but(n=n, sampler=sampler, steps=steps, labels=labels, guidance=guidance)
        number("steps", steps, 1, config.start or checkpoint.diffusion.T, whole=True)
    if BPD in wanted:
        _require_bound(checkpoint)
        number("test pictures", pictures, 1, IMAGES_MOST, whole=True)
        number("terms", terms, 2, checkpoint.diffusion.T, whole=True)
    else:
        pictures = terms = None
    source = own.get(name, name)
    return Plan(checkpoint, source, config, against, judge, reference, pictures, terms)


def most_seconds() -> float:
    """What one measurement may take: the lane is for all visitors."""
    return runtime.most_seconds(runtime.LANE_MINUTES, 60)


def how_long(own: Mapping[str, str], name: Any, *controls: Any) -> str:
    """The line beside the button: the time it takes, or why there is no such measurement."""
    try:
        seconds, most = plan(own, name, *controls).seconds(), most_seconds()
        if seconds > most:
            return f"about {budget.spoken(seconds)}, and {budget.spoken(most)} is the most"
        return f"about {budget.spoken(seconds)} on this machine"
    except (ValueError, OSError, FloatingPointError) as error:
        return html.escape(str(error))


@GPU
@friendly
def _bound(source: str, x_0: torch.Tensor, terms: int) -> Iterator[Bound]:
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    yield from model_bound(runtime.model(source), x_0, steps=terms, batch_size=PAGE, **options)


def run(local: bool, *asked: Any) -> Iterator[Said]:
    """Measure, and stream player, line of progress and result.

    Args:
        local: folders of this disk are allowed.

    Raises:
        gr.Error: a bad value, or data that can't be had; the line says so, too.
    """
    try:
        yield from friendly(_run)(local, *asked)
    except gr.Error as error:
        yield gr.skip(), error.message, gr.skip()
        raise


def _run(local: bool, own: Mapping[str, str], name: Any, *controls: Any) -> Iterator[Said]:
    p = plan(own, name, *controls)
    yield gr.skip(), "Getting ready…", ""
    seconds = p.seconds()
    allowed = f"up to {budget.spoken(most_seconds())}"
    require(seconds <= most_seconds(), "time of the measurement", budget.spoken(seconds), allowed)
    x_0 = None
    if p.images and p.terms:  # before the samples: whatever can be refused is refused now
        config = p.checkpoint.model.config
        options = {"train": False, "local": local}
        steps = loading(p.checkpoint.info["dataset"], config.size, config.channels, **options)
        found = yield from shown(steps, lambda line: (gr.skip(), line, gr.skip()))
        if p.against is not None:
            found = found.only(p.against)
        require(len(found) > 0, "test pictures of the data", 0, "one or more")
        x_0 = found.batch(torch.arange(min(len(found), p.images)))
    done = []
    if p.judge and p.reference:
        summary = yield from _sample(p, str(name))
        done.append(_judged(p, summary))
    if x_0 is not None and p.terms:
        bound = yield from _bounded(p, x_0)
        done.append(_bits(bound))
    yield gr.skip(), f"Done: {html.escape(str(name))}.", "\n".join(done)


def _sample(p: Plan, name: str) -> Generator[Said, None, metrics.Summary]:
    """Draw and show the samples; returns what the judge says of them."""
    assert p.judge
    c, model, window = p.config, p.checkpoint.model.config, p.pages[0].n
    title = f"{name} · {SAMPLERS[c.sampler]}, {c.steps} steps"
    shape = (window, model.size, model.size, model.channels)
    about: dict[str, Any] = {"unit": "picture", "title": title, "meta": metadata(name, c)}
    yield player.header(shape, c.n, panels=PANELS, **about), bar("Sampling…", 0), gr.skip()
    summary, shown = metrics.Summary(), np.empty((0, *shape[1:]), np.uint8)
    begun, sent = time.monotonic(), 0.0
    for page in p.pages:
        for _ in give_way():
            yield IDLE
        for step, pictures in runtime.draw(p.source, page):
            now, frame, done = time.monotonic(), gr.skip(), summary.n + page.n * step / c.steps
            if pictures is not None:
                summary.add(*p.judge.extract(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
                shown = np.concatenate([shown, pictures])[-window:]
                frame = player.frame(summary.n, None, shown, seconds=now - begun)
            elif now - sent < EVERY:
                yield IDLE
                continue
            sent, left = now, (now - begun) * (c.n / done - 1) if done else 0
            words = f"{summary.n} of {c.n} pictures"
            words += f", about {budget.spoken(left)} to go" if left else ""
            yield frame, bar(words, done / c.n), gr.skip()
    return summary


def _bounded(p: Plan, x_0: torch.Tensor) -> Generator[Said, None, Bound]:
    """Walk through the bound; returns it."""
    assert p.terms
    sent = 0.0
    for bound in _bound(p.source, x_0, p.terms):
        if time.monotonic() - sent >= EVERY:
            sent = time.monotonic()
            words = f"bits/dim: {bound.n} of {len(x_0)} test pictures"
            yield gr.skip(), bar(words, bound.done), gr.skip()
        else:
            yield IDLE
    return bound


def _judged(p: Plan, summary: metrics.Summary) -> str:
    """Table and histogram of what the judge says, as HTML."""
    assert p.judge
    assert p.reference
    classes = list(p.judge.config.classes)
    said = metrics.judge(summary, p.reference, classes)
    dataset = html.escape(str(p.checkpoint.info["dataset"]))
    which = "" if p.against is None else f" of class {html.escape(p.against)}"
    floor = metrics.floor(p.reference, summary.n)
    histogram = bar_plot(
        classes,
        {
            "samples": list(said["classes"].values()),
            "test data": list(said["classes_data"].values()),
        },
    )
    return f"""<table>
<tr><th></th><th>{summary.n:,} samples</th><th>{p.reference.n:,} test pictures{which}</th></tr>
<tr><th>fd-{dataset}</th><td><b>{said["fd"]:.3g}</b></td><td>{floor:.3g}*</td></tr>
<tr><th>sure of</th><td>{100 * said["sure"]:.1f} %</td><td>{100 * said["sure_data"]:.1f} %</td></tr>
</table>
<p>fd-{dataset}: the Fréchet distance from the test pictures in the {p.judge.dim} features of this
repository's own classifier ({p.judge.name}). It is not FID, and it falls with the number of
pictures: compare it with the same number only. * What {summary.n:,} draws from the data's own
Gaussian get. Sure: a probability above 0.9.</p>
<figure>What the classifier takes them for{histogram}</figure>"""


def _bits(bound: Bound) -> str:
    """Table and plots of the bound, as HTML."""
    plots, error = bound_plots(bound), bound.error
    spread = f" ± {error:.3f}" if math.isfinite(error) else ""
    rest = float(bound.terms[1:].sum())
    return f"""<table aria-label="{html.escape(bound_sentence(bound))}">
<tr><th>bits/dim</th><th>L<sub>T</sub></th><th>L<sub>1</sub> … L<sub>T−1</sub></th>
<th>L<sub>0</sub></th></tr>
<tr><td><b>{bound.total:.3f}</b>{spread}</td><td>{bound.prior:.4f}</td><td>{rest:.3f}</td>
<td>{float(bound.terms[0]):.3f}</td></tr>
</table>
<p>The variational bound of Ho et al. 2020, eq. 5, on {bound.n:,} test pictures with
{len(bound.terms):,} terms.</p>
<figure>Each term{plots["terms"]}</figure>
<figure>Rate and distortion (their fig. 5){plots["rate-distortion"]}</figure>"""


def offer(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """What the controls are for a model: metrics, why not all of them, n, sampler, steps, class,
    guidance, class of the data and terms, each as the options of a component."""
    best, classes, missing = defaults(checkpoint), checkpoint.classes, why_not(checkpoint)
    only, known = tuned_to(checkpoint), classes_of(checkpoint)
    offered = [(text, metric) for metric, text in LABELS.items() if metric not in missing]
    T = checkpoint.diffusion.T
    return [
        {"choices": offered, "value": [metric for _, metric in offered][:1]},
        {"value": " ".join(map(html.escape, missing.values())), "visible": bool(missing)},
        {"value": 128 if FD in missing else 2 * judge_of(checkpoint).dim},
        {"value": best.sampler},
        {"value": best.steps, "maximum": best.start or T},
        {
            "value": class_words(best.labels, classes),
            "choices": class_choices(checkpoint),
            "visible": bool(classes),
        },
        {"value": best.guidance, "visible": bool(classes)},
        {
            "value": only if only in known else ALL,
            "choices": [ALL, *known],
            "visible": bool(known),
        },
        {"value": min(50, T), "maximum": T},
    ]
