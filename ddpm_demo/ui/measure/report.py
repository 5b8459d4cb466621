"""Writes the results of a measurement in plain sentences."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_demo.data import DATASETS
from ddpm_demo.evaluation import frechet
from ddpm_demo.evaluation.bounds import Bound
from ddpm_demo.evaluation.classifier import Classifier
from ddpm_demo.evaluation.features import Summary
from ddpm_demo.evaluation.report import bound_plots, bound_sentence, numbers
from ddpm_demo.media.plots import bar_plot
from ddpm_demo.ui.measure.plans import Judged, Plan

LOWER, HIGHER = "↓ lower is better", "↑ higher is better"


@dataclass(frozen=True)
class Figure:
    """One number of a measurement.

    Attributes:
        name: its name, as a reader would say it.
        value: the number.
        text: the number as it is shown.
        goal: which way is better: `LOWER` or `HIGHER`.
        said: the sentence after the number, as HTML.
    """

    name: str
    value: float
    text: str
    goal: str
    said: str

    def sentence(self) -> str:
        number = f'<b title="{self.value:.6g}">{self.text}</b>'
        return f'{self.name}: {number}{self.said} <span class="goal">{self.goal}</span>'


@dataclass(frozen=True)
class Report:
    """One measurement.

    Attributes:
        title: model, sampler and number of samples.
        figures: the numbers to compare with another run's, by name.
        details: the HTML below.
    """

    title: str
    figures: Sequence[Figure]
    details: str

    def html(self, before: Report | None) -> str:
        """The whole report, with the last run's beside it."""
        lines = "".join(f'<p class="said">{figure.sentence()}</p>' for figure in self.figures)
        return f"{lines}{self._beside(before) if before else ''}{self.details}"

    def _beside(self, before: Report) -> str:
        old = {figure.name: figure for figure in before.figures}
        both = [(new, old[new.name]) for new in self.figures if new.name in old]
        if not both:
            return ""
        rows = "".join(
            f"<tr><th>{new.name}</th><td>{new.text}</td><td>{was.text}</td>"
            f"<td>{_verdict(new, was)}</td></tr>"
            for new, was in both
        )
        heads = "".join(
            f"<th>{words}: {html.escape(report.title)}</th>"
            for words, report in (("This run", self), ("The run before", before))
        )
        return f"<table><tr><th></th>{heads}<th></th></tr>{rows}</table>"


def _verdict(new: Figure, was: Figure) -> str:
    if new.text == was.text:
        return "the same"
    better = (new.value < was.value) == (new.goal == LOWER)
    arrow = "↓" if new.value < was.value else "↑"
    if not new.goal:  # the metric doesn't say which way is better
        return arrow
    return f"{arrow} {'better' if better else 'worse'}"


def judged_figures(p: Plan, judged: Judged, summary: Summary, known: Summary) -> list[Figure]:
    """The distance of the samples, and how many of them the judge is sure of; or the numbers of
    another metric.

    Args:
        known: what the judge sees in the test pictures.
    """
    if not isinstance(judged.judge, Classifier):
        compare = judged.metric.metric.compare
        assert compare
        found = numbers(compare(judged.metric.name, judged.judge, summary, known))
        return [Figure(html.escape(k), v, f"{v:.3g}", "", ".") for k, v in found.items()]
    row = DATASETS[p.selected.checkpoint.info["dataset"]]  # or there would be no judge
    said = frechet.judge(summary, known, list(judged.judge.config.classes))
    floor = frechet.floor(known, summary.n)
    real = f"real {row.things}"
    real += "" if p.against is None else f" of class {html.escape(p.against)}"
    perfect = f'<span title="{floor:.6g}">{floor:#.2g}</span>'
    return [
        Figure(
            f"Distance from {real}",
            said["fd"],
            f"{said['fd']:#.2g}",
            LOWER,
            f". Perfect would be about {perfect} with {summary.n:,} samples.",
        ),
        Figure(
            f"Clearly {row.thing}",
            100 * said["sure"],
            f"{100 * said['sure']:.0f} %",
            HIGHER,
            f' (real ones: <span title="{100 * said["sure_data"]:.6g}">'
            f"{100 * said['sure_data']:.0f} %</span>)",
        ),
    ]


def judged_details(p: Plan, judged: Judged, summary: Summary, known: Summary) -> str:
    """The classes that the judge sees, and what the distance is."""
    if not isinstance(judged.judge, Classifier):
        return f"<p>{html.escape(judged.metric.metric.help)}</p>"
    classes = list(judged.judge.config.classes)
    said = frechet.judge(summary, known, classes)
    histogram = bar_plot(
        classes,
        {
            "samples": list(said["classes"].values()),
            "test pictures": list(said["classes_data"].values()),
        },
    )
    which = "" if p.against is None else f" of class {html.escape(p.against)}"
    even = "Classes in turn are spread more evenly than by chance, so these can be below it."
    turns = even if len(p.config.labels or ()) > 1 else ""
    return f"""<figure>What our classifier sees in them{histogram}</figure>
<p>The distance is Fréchet's: it compares the mean and the spread of {judged.judge.dim} features
with those of {known.n:,} test pictures{which}. The features are those of this project's own
classifier ({judged.judge.name}), so it is not FID. It falls with the number of samples, so compare
it only with the same number. Perfect is what as many random draws would have.
{turns} Clearly: the classifier gives one class more than 90 %.</p>"""


def bound_figure(bound: Bound) -> Figure:
    spread = f" ± {bound.error:.3f}" if math.isfinite(bound.error) else ""
    said = ": the bits that the model needs for each number of a picture."
    return Figure("Bits/dim", bound.total, f"{bound.total:.3f}{spread}", LOWER, said)


def bound_details(bound: Bound) -> str:
    """The parts of the bound, and its plots."""
    plots, rest = bound_plots(bound), float(bound.terms[1:].sum())
    return f"""<table aria-label="{html.escape(bound_sentence(bound))}">
<tr><th>L<sub>T</sub>, the end</th><th>L<sub>1</sub> … L<sub>T−1</sub>, on the way</th>
<th>L<sub>0</sub>, the picture</th></tr>
<tr><td>{bound.prior:.4f}</td><td>{rest:.3f}</td><td>{float(bound.terms[0]):.3f}</td></tr>
</table>
<p>The variational bound of Ho et al. 2020, eq. 5, on {bound.n:,} test pictures with
{len(bound.terms):,} terms.</p>
<figure>Each term{plots["terms"]}</figure>
<figure>Rate and distortion (their fig. 5){plots["rate-distortion"]}</figure>"""
