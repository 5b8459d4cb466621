"""How close samples are to the data: distances of what an extractor sees in both.

An extractor turns pictures into features and logits: one of our classifiers (`classifier.py`), or
Inception through torch-fidelity. A `Summary` gathers them a batch at a time, so that sampling and
measuring can take turns and no set of pictures has to fit into memory.

Only the Fréchet distance in Inception's features is FID (Heusel et al. 2017). In those of another
network it has the same formula and another scale, and is called by that network's name here.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import require
from ddpm_demo.evaluation.classifier import SURE
from ddpm_demo.files import write_atomically

CACHE = Path.home() / ".cache" / "ddpm_demo" / "statistics"
SPLITS = 10  # of the Inception score
NEIGHBOURS = 3  # of precision and recall
MOST = 10_000  # reference pictures that precision and recall look at


class MetricError(ValueError):
    """A metric can't be had; the message is one sentence that says why and what to do."""


class Extractor(Protocol):
    """What turns pictures into features."""

    @property
    def name(self) -> str:
        """Tells its weights apart from all others: statistics are cached under it."""
        ...

    @property
    def dim(self) -> int:
        """Number of features."""
        ...

    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) features and (B, K) logits of (B, C, H, W) uint8 pictures."""
        ...


class Summary:
    """What an extractor saw in a set of pictures.

    Attributes:
        n: pictures seen.
        mean, scatter: (D,) and (D, D) float64; the scatter is n - 1 times the covariance.
        counts: (K,) pictures by their most likely class.
        sure: pictures whose class has a probability above 0.9.
        keep: how many pictures' features and logits are kept, for the metrics that need each.
    """

    def __init__(self, keep: int = 0) -> None:
        self.n = self.sure = 0
        self.keep = keep
        self.mean = self.scatter = torch.zeros((), dtype=torch.float64)
        self.counts = torch.zeros((), dtype=torch.long)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, logits: Tensor) -> None:
        """Take in (B, D) features and (B, K) logits."""
        x, said = features.cpu().double(), logits.cpu().double()
        mean = x.mean(0)
        best, which = said.softmax(1).max(1)
        if left := max(0, self.keep - self.n):
            self.kept.append((x[:left].float(), said[:left].float()))
        counts = torch.bincount(which, minlength=said.shape[1])
        self.merge(len(x), int((best > SURE).sum()), mean, (x - mean).T @ (x - mean), counts)

    def merge(self, n: int, sure: int, mean: Tensor, scatter: Tensor, counts: Tensor) -> None:
        """Take in what is known of other pictures (Chan, Golub & LeVeque 1979, eq. 2.1)."""
        gap = mean - self.mean
        self.scatter = self.scatter + scatter + gap.outer(gap) * (self.n * n / (self.n + n))
        self.mean = self.mean + gap * (n / (self.n + n))
        self.counts = self.counts + counts
        self.sure += sure
        self.n += n

    @property
    def covariance(self) -> Tensor:
        """(D, D), without bias."""
        return self.scatter / (self.n - 1)

    @property
    def features(self) -> Tensor:
        """(k, D) float32, of the pictures that were kept."""
        return torch.cat([torch.empty(0, *self.mean.shape), *(f for f, _ in self.kept)])

    @property
    def logits(self) -> Tensor:
        """(k, K) float32, of the pictures that were kept."""
        return torch.cat([torch.empty(0, *self.counts.shape), *(said for _, said in self.kept)])


def summarise(
    extractor: Extractor, pixels: Tensor, *, keep: int = 0, batch_size: int = 200
) -> Iterator[Summary]:
    """The summary of (N, C, H, W) uint8 pictures: the same object after every batch, growing."""
    summary = Summary(keep)
    for part in pixels.split(batch_size):
        summary.add(*extractor.extract(part))
        yield summary


def reference(
    extractor: Extractor,
    pixels: Tensor,
    key: Sequence[str],
    *,
    keep: int = 0,
    cache: Path = CACHE,
    batch_size: int = 200,
) -> Iterator[Summary]:
    """As `summarise`, but from the second time on read from a file.

    Args:
        key: what the pictures are: data set, split and class. The file's name has it, along with
            the extractor and a hash of the pixels, so that a folder may change.
        cache: where the files are; one that can't be written is done without.
    """
    digest = hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()[:16]
    words = [*key, f"{len(pixels)}", *([f"keep{keep}"] if keep else []), extractor.name, digest]
    path = cache / (re.sub(r"[^\w.-]+", "_", "-".join(words)) + ".npz")
    if summary := _read(path, keep):
        yield summary
        return
    for summary in summarise(extractor, pixels, keep=keep, batch_size=batch_size):
        if summary.n == len(pixels):
            with contextlib.suppress(OSError):
                _write(path, summary)
        yield summary


def _write(path: Path, summary: Summary) -> None:
    names = ("mean", "scatter", "counts", "features", "logits")
    arrays = {name: getattr(summary, name).numpy() for name in names}
    buffer = io.BytesIO()
    np.savez(buffer, seen=np.array([summary.n, summary.sure]), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _read(path: Path, keep: int) -> Summary | None:
    """None where there is no file, or a broken one: it is then made again."""
    summary = Summary(keep)
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            summary.n, summary.sure = file["seen"].tolist()
            arrays = {name: torch.from_numpy(file[name]) for name in file}
            summary.mean, summary.scatter = arrays["mean"], arrays["scatter"]
            summary.counts = arrays["counts"]
            summary.kept = [(arrays["features"], arrays["logits"])]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return summary


# ---- the Fréchet distance ---------------------------------------------------------------------


def require_enough(n: int, dim: int) -> None:
    """Raise `ValueError` for too few pictures: twice the features is the least we answer for."""
    require(
        n >= 2 * dim,
        "number of pictures",
        n,
        f"{2 * dim:,} or more, twice the {dim:,} features whose covariance has to be known",
    )


def frechet(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson & Landau 1982), all in float64.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The eigenvalues of C1 C2 are those of the symmetric
    C1^(1/2) C2 C1^(1/2), so no root of an unsymmetric matrix is taken, which may come out complex.
    """
    values, vectors = torch.linalg.eigh(covariance_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp(min=0).sqrt().sum()
    gap = (mean_1 - mean_2).square().sum()
    distance = gap + covariance_1.trace() + covariance_2.trace() - 2 * cross
    return max(0.0, float(distance))  # rounding may leave equal ones a little below 0


def distance(samples: Summary, data: Summary) -> float:
    """The Fréchet distance of two summaries.

    Raises:
        ValueError: one of them is of too few pictures.
    """
    for summary in (samples, data):
        require_enough(summary.n, len(summary.mean))
    return frechet(samples.mean, samples.covariance, data.mean, data.covariance)


def floor(data: Summary, n: int) -> float:
    """The distance from the data's Gaussian that n draws from that very Gaussian have.

    It is not 0, as n draws don't know the covariance: about what a perfect model would get.
    """
    values, vectors = torch.linalg.eigh(data.covariance)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, len(values), generator=g, dtype=torch.float64)
    x = data.mean + z * values.clamp(min=0).sqrt() @ vectors.T
    return frechet(x.mean(0), x.T.cov(), data.mean, data.covariance)


def judge(samples: Summary, data: Summary, classes: Sequence[str]) -> dict[str, Any]:
    """What a classifier says of samples, beside what it says of the data.

    Returns:
        `fd`; `n` and `n_data`; `sure` and `sure_data`, shares with a probability above 0.9;
        `classes` and `classes_data`, shares by most likely class.
    """
    result: dict[str, Any] = {"fd": distance(samples, data)}
    for suffix, summary in (("", samples), ("_data", data)):
        shares = (summary.counts.double() / summary.n).tolist()
        result[f"n{suffix}"] = summary.n
        result[f"sure{suffix}"] = summary.sure / summary.n
        result[f"classes{suffix}"] = dict(zip(classes, shares, strict=True))
    return result


# ---- Inception, by torch-fidelity ---------------------------------------------------------------


class Inception:
    """An extractor of torch-fidelity, by default Inception with the weights that FID is made with.

    Args:
        weights: file with the weights; None: where torch.hub keeps it, downloaded on first use.
        extractor: name in torch-fidelity's registry.

    Raises:
        MetricError: torch-fidelity isn't installed, or the weights can't be had.
    """

    def __init__(
        self,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        extractor: str = "inception-v3-compat",
    ) -> None:
        known = _fidelity("registry").FEATURE_EXTRACTORS_REGISTRY
        require(extractor in known, "extractor", extractor, ", ".join(known))
        layer = known[extractor].get_default_feature_layer_for_metric
        self.layers = layer("fid"), layer("isc")
        if extractor == "inception-v3-compat":
            weights = weights or inception_weights()
            _require_tensors(weights)
        self.device, self.name = torch.device(device), extractor
        try:
            self.net = (
                _fidelity("utils")
                .create_feature_extractor(
                    extractor,
                    list(dict.fromkeys(self.layers)),
                    cuda=False,
                    feature_extractor_weights_path=weights and str(weights),
                    verbose=False,
                )
                .to(self.device)
            )
        except RuntimeError as error:  # other tensors than Inception's
            raise MetricError(f"{weights} holds other weights: {str(error)[:200]}.") from error
        self.dim = self.extract(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[0].shape[1]

    @torch.no_grad()
    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of (B, C, H, W) uint8 pictures; grey ones are made RGB."""
        rgb = pixels.expand(-1, 3, -1, -1).contiguous().to(self.device)
        found = self.net.convert_features_tuple_to_dict(self.net(rgb))
        features, logits = (found[layer] for layer in self.layers)
        return features, logits


def inception_weights() -> Path:
    """The weights of FID's Inception where torch.hub keeps them, downloaded unless there.

    Raises:
        MetricError: they aren't there and can't be downloaded.
    """
    url = _fidelity("feature_extractor_inceptionv3").URL_INCEPTION_V3
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise MetricError(
            f"The Inception weights can't be downloaded ({reason}); connect once, or put {url} "
            f"at {path}."
        ) from error
    return path


def _require_tensors(path: Path) -> None:
    """Refuse a file that is anything but tensors: torch-fidelity itself would run any pickle."""
    try:
        torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MetricError(f"{path} is not a whole file of Inception weights ({reason}).") from None


def _fidelity(part: str) -> Any:
    """A module of torch-fidelity, which is needed for nothing else and therefore optional."""
    try:
        return importlib.import_module(f"torch_fidelity.{part}")
    except ImportError as error:
        raise MetricError(
            "FID, Inception score, precision and recall need torch-fidelity; "
            "install it with: pip install 'torch-fidelity>=0.4'."
        ) from error


def inception_score(samples: Summary) -> tuple[float, float]:
    """Mean and standard deviation over ten splits of the kept logits (Salimans et al. 2016).

    Raises:
        ValueError: fewer than 100 pictures.
    """
    n = len(samples.logits)
    require(n >= 10 * SPLITS, "number of pictures", n, f"{10 * SPLITS} or more in {SPLITS} splits")
    score = _fidelity("metric_isc").isc_features_to_metric(samples.logits, splits=SPLITS)
    return score["inception_score_mean"], score["inception_score_std"]


def precision_recall(samples: Summary, data: Summary) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of the kept features, k = 3.

    In Inception's features here, and not in VGG's as in the paper. Both depend on the numbers of
    pictures: compare only results of the same ones.

    Raises:
        ValueError: fewer than four pictures.
    """
    for summary in (samples, data):
        n = len(summary.features)
        require(n > NEIGHBOURS, "number of pictures", n, f"{NEIGHBOURS + 1} or more")
    found = _fidelity("metric_prc").prc_features_to_metric(
        samples.features,
        data.features,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=1000,
        save_cpu_ram=True,
        verbose=False,
    )
    return found["precision"], found["recall"]
