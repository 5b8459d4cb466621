"""The metrics, one row each. The command line and the tab "Measure" read these rows.

Most metrics measure samples: the row names their extractor, and what to compute from the summaries
of samples and data. `bpd` needs no samples; it measures test pictures (`bounds.py`).

Torch is imported only when a metric is used, so that `evaluate --help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpm_demo.config import either, require

if TYPE_CHECKING:
    import torch

    from ddpm_demo.evaluation.features import Extractor, Summary
    from ddpm_demo.models.checkpoint import Checkpoint

DATA_KEPT = 10_000  # for how many pictures of the data all features are kept; some metrics need it


def _fits(checkpoint: Checkpoint) -> None:
    """Accept any model."""


def _one(extractor: Extractor) -> int:
    return 1


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    Attributes:
        help: what it is, for `evaluate --help`.
        label: its name in the app; "" if only the command line has it.
        suffix: what may follow its name in a command, such as CLASSIFIER in fd-CLASSIFIER; ""
            allows nothing.
        usual: returns the suffix to use for a model if none is given.
        check: raises `ValueError` for a model that can't be measured with this metric.
        extractor: makes the extractor from the suffix and a device. Metrics with the same function
            share one. None means that the metric measures test pictures, not samples.
        compare: takes (name, extractor, samples, data) and returns columns of the result. Columns
            with numbers are shown.
        least: returns the fewest samples that the metric can be computed from.
        keep: True if it needs the features of each picture, not only their mean and covariance.
    """

    help: str
    label: str = ""
    suffix: str = ""
    usual: Callable[[Checkpoint], str] | None = None
    check: Callable[[Checkpoint], None] = _fits
    extractor: Callable[[str, torch.device], Extractor] | None = None
    compare: Callable[[str, Extractor, Summary, Summary], dict[str, Any]] | None = None
    least: Callable[[Extractor], int] = _one
    keep: bool = False

    def check_number(self, n: int, extractor: Extractor) -> None:
        """Raise `ValueError` if there are fewer samples than the metric needs."""
        least = self.least(extractor)
        why = f"twice the {extractor.dim:,} features" if least == 2 * extractor.dim else ""
        require(n >= least, "number of pictures", n, f"{least:,} or more", why)


@dataclass(frozen=True)
class Asked:
    """A metric that a user asked for. For example, fd-mnist is the metric fd with suffix mnist."""

    name: str
    metric: Metric
    suffix: str = ""


def parse_metrics(words: Sequence[str], checkpoint: Checkpoint) -> list[Asked]:
    """Find the metrics by their names, each once, and check that they fit the model.

    Raises:
        ValueError: a metric is unknown, or this model can't be measured with it.
    """
    asked = {}
    for word in words:
        name, dash, suffix = word.partition("-")
        metric = METRICS.get(name)
        ok = metric is not None and bool(suffix) == bool(dash) and bool(metric.suffix or not dash)
        require(ok, "metric", word, either(map(written, METRICS)))
        assert metric is not None
        metric.check(checkpoint)
        if metric.usual and not suffix:
            suffix = metric.usual(checkpoint)
        full = f"{name}-{suffix}" if suffix else name
        asked[full] = Asked(full, metric, suffix)
    return list(asked.values())


def written(name: str) -> str:
    """A metric as a command writes it, with its suffix."""
    suffix = METRICS[name].suffix
    return f"{name}-{suffix}" if suffix else name


def make_extractors(asked: Sequence[Asked], device: torch.device) -> dict[str, Extractor]:
    """Make the extractors, by the names of their metrics. Metrics that share one get the same."""
    made: dict[tuple[object, str], Extractor] = {}
    for a in asked:
        key = (a.metric.extractor, a.suffix)
        if a.metric.extractor and key not in made:
            made[key] = a.metric.extractor(a.suffix, device)
    return {
        a.name: made[a.metric.extractor, a.suffix] for a in asked if a.metric.extractor is not None
    }


# ---- the rows -----------------------------------------------------------------------------------


def _judge(suffix: str, device: torch.device) -> Extractor:
    from ddpm_demo.evaluation.classifier import load_classifier

    return load_classifier(suffix, device)


def _dataset(checkpoint: Checkpoint) -> str:
    from ddpm_demo.evaluation.classifier import judge_of

    return str(judge_of(checkpoint).info["dataset"])


def _inception(suffix: str, device: torch.device) -> Extractor:
    from ddpm_demo.evaluation import inception

    return inception.Inception(device=device)


def _twice_the_features(extractor: Extractor) -> int:
    return 2 * extractor.dim


def _judged(name: str, extractor: Extractor, samples: Summary, data: Summary) -> dict[str, Any]:
    from ddpm_demo.evaluation import frechet
    from ddpm_demo.evaluation.classifier import Classifier

    assert isinstance(extractor, Classifier)
    said = frechet.judge(samples, data, extractor.config.classes)
    return {name: said["fd"], f"{name} says": said}


def _fid(name: str, extractor: Extractor, samples: Summary, data: Summary) -> dict[str, Any]:
    from ddpm_demo.evaluation import frechet

    return {name: frechet.distance(samples, data)}


def _inception_score(
    name: str, extractor: Extractor, samples: Summary, data: Summary
) -> dict[str, Any]:
    from ddpm_demo.evaluation import inception

    return dict(zip((name, f"{name}_std"), inception.inception_score(samples), strict=True))


def _precision_recall(
    name: str, extractor: Extractor, samples: Summary, data: Summary
) -> dict[str, Any]:
    from ddpm_demo.evaluation import inception

    found = inception.precision_recall(samples, data)
    return dict(zip(("precision", "recall"), found, strict=True))


def _bound(checkpoint: Checkpoint) -> None:
    from ddpm_demo.evaluation.bounds import require_gaussian

    require_gaussian(checkpoint)


METRICS: dict[str, Metric] = {
    "fd": Metric(
        "Fréchet distance in the features of one of our classifiers",
        label="Distance from real pictures",
        suffix="CLASSIFIER",
        usual=_dataset,
        extractor=_judge,
        compare=_judged,
        least=_twice_the_features,
    ),
    "bpd": Metric(
        "bits/dim on test pictures, by the variational bound",
        label="Bits per number (bits/dim)",
        check=_bound,
    ),
    "fid": Metric(
        "FID, by torch-fidelity",
        extractor=_inception,
        compare=_fid,
        least=_twice_the_features,
    ),
    "is": Metric(
        "Inception score, by torch-fidelity",
        extractor=_inception,
        compare=_inception_score,
        least=lambda extractor: 100,
        keep=True,
    ),
    "precision_recall": Metric(
        "improved precision and recall, by torch-fidelity",
        extractor=_inception,
        compare=_precision_recall,
        least=lambda extractor: 4,
        keep=True,
    ),
}
