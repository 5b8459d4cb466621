"""The plan of a measurement: the visitor's values, checked against the model."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import torch

from ddpm_demo import data
from ddpm_demo.config import SampleConfig, number, one_of, require
from ddpm_demo.evaluation import metrics as metric_rows
from ddpm_demo.evaluation import references
from ddpm_demo.evaluation.classifier import Classifier, judge_of
from ddpm_demo.evaluation.features import Extractor, Summary
from ddpm_demo.evaluation.samples import pages
from ddpm_demo.inference import timing
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.ui.components import controls
from ddpm_demo.ui.components.controls import Selected, most_pictures
from ddpm_demo.ui.measure.asked import ALL, BPD, FD, IMAGES_MOST, N_MOST, TERMS, Asked, N, metrics
from ddpm_demo.ui.server import runtime

PAGE = 16  # pictures drawn, or calls of the bound, at once: Stop and the pictures shown are as fine


@dataclass(frozen=True)
class Judged:
    """A metric of samples.

    Attributes:
        metric: its row, and its name.
        judge: the network that looks at the samples.
        reference: what it sees in the test pictures; None before they are read.
    """

    metric: metric_rows.Asked
    judge: Extractor
    reference: Summary | None

    @property
    def keep(self) -> bool:
        return self.metric.metric.keep


@dataclass(frozen=True)
class Plan:
    """A measurement whose values are all allowed.

    Attributes:
        config: how to sample, with `n` pictures.
        against: compare with this class of the data; None for all.
        judged: one for each metric of samples.
        images, terms: the size of the bound; 0 without it.
    """

    selected: Selected
    config: SampleConfig
    against: str | None
    judged: list[Judged]
    images: int
    terms: int

    @property
    def pages(self) -> list[SampleConfig]:
        most = min(PAGE, most_pictures(self.selected.facts))
        return pages(self.config, most) if self.judged else []

    def seconds(self) -> float:
        """About how long it takes here."""
        each = runtime.seconds(self.selected.source)
        found = sum(timing.estimate(page, each) for page in self.pages)
        return found + self.images * self.terms / PAGE * timing.per_call(each, PAGE)


def _judged(checkpoint: Checkpoint, name: str, against: str | None) -> Judged | None:
    """How to judge this model's samples; None for bits/dim, which has no samples.

    Raises:
        ValueError: the model can't have this metric.
    """
    (metric,) = metric_rows.parse_metrics([name], checkpoint)
    judge = metric_rows.make_extractors([metric], torch.device("cpu")).get(metric.name)
    if isinstance(judge, Classifier):
        k = None if against is None else judge.config.classes.index(against)
        return Judged(metric, judge, references.read(judge, "test", k))
    dataset = checkpoint.info.get("dataset")
    require(data.known(dataset), "data of the model", dataset, data.named())
    return Judged(metric, judge, None) if judge else None


def classes_of(checkpoint: Checkpoint) -> list[str]:
    """The classes of the data, each of which samples can be compared with."""
    try:
        return list(judge_of(checkpoint).config.classes)
    except ValueError:
        return checkpoint.classes


def why_not(checkpoint: Checkpoint) -> dict[str, str]:
    """The metrics that a model can't have, and why."""
    reasons = {}
    for name, words in metrics().items():
        try:
            _judged(checkpoint, name, None)
        except ValueError as error:
            short = {FD: "distance", BPD: "bits/dim"}.get(name, words)
            reasons[name] = f"No {short}: {error}"
    return reasons


def plan(selected: Selected, asked: Asked) -> Plan:
    """The plan that the controls, or a raw API call, ask for. It reads no data.

    Raises:
        ValueError: a value is not allowed, or this model can't have a metric.
    """
    checkpoint, wanted = selected.checkpoint, asked.wanted
    require(isinstance(wanted, list) and len(wanted) > 0, "metrics", wanted, "one or more of them")
    for metric in wanted:
        one_of("metric", metric, tuple(metrics()))
    labels = selected.facts.parse_classes(controls.words_of(asked.labels))
    one_of("class of the data", asked.against, (ALL, *classes_of(checkpoint)))
    against = None if asked.against == ALL else asked.against
    config, images, terms = selected.best, 0, 0
    found = [_judged(checkpoint, name, against) for name in dict.fromkeys(wanted)]
    judged = [j for j in found if j]
    if judged:
        number("number of pictures", asked.n, 1, N_MOST, whole=True)
        for j in judged:
            j.metric.metric.check_number(asked.n, j.judge)
        config = config.but(
            n=asked.n,
            sampler=asked.sampler,
            steps=asked.steps,
            labels=labels,
            guidance=asked.guidance,
        )
        number("steps", asked.steps, 1, config.start or checkpoint.diffusion.T, whole=True)
    if None in found:
        number("test pictures", asked.images, 1, IMAGES_MOST, whole=True)
        number("terms", asked.terms, 2, checkpoint.diffusion.T, whole=True)
        images, terms = asked.images, asked.terms
    return Plan(selected, config, against, judged, images, terms)


def offer(selected: Selected) -> tuple[Asked, dict[str, Any]]:
    """What the controls are for a model: options of a component for each field, and those of the
    line that says which metrics it can't have."""
    checkpoint, best = selected.checkpoint, selected.best
    missing, only = why_not(checkpoint), selected.facts.tuned_to
    known = classes_of(checkpoint)
    offered = [(text, metric) for metric, text in metrics().items() if metric not in missing]
    T, classes = checkpoint.diffusion.T, checkpoint.classes
    options = Asked(
        wanted={"choices": offered, "value": [metric for _, metric in offered][:1]},
        n={"value": N if FD in missing else max(N, 2 * judge_of(checkpoint).dim)},
        sampler={"value": best.sampler},
        steps={"value": best.steps, "maximum": best.start or T},
        labels=controls.class_options(selected.facts, best.labels),
        guidance={"value": best.guidance, "visible": bool(classes)},
        against={
            "value": only if only in known else ALL,
            "choices": [ALL, *known],
            "visible": bool(known),
        },
        images={},
        terms={"value": min(TERMS, T), "maximum": T},
    )
    why = {"value": " ".join(map(html.escape, missing.values())), "visible": bool(missing)}
    return options, why
