"""Features and logits of pictures, and their statistics.

An extractor turns pictures into features and logits. It is one of our classifiers
(`classifier.py`), or Inception through torch-fidelity (`inception.py`). A `Summary` gathers the
statistics batch by batch. So sampling and measuring can take turns, and the pictures need not all
fit into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.machine.files import write_atomically

SURE = 0.9  # a probability above this counts as sure


class MetricError(ValueError):
    """A metric can't be computed. The message is one sentence that says why and what to do."""


class Extractor(Protocol):
    """Turns pictures into features and logits."""

    @property
    def name(self) -> str:
        """A name that differs for other weights. Statistics are cached under it."""
        ...

    @property
    def dim(self) -> int:
        """The number of features."""
        ...

    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) features and (B, K) logits of (B, C, H, W) uint8 pictures."""
        ...


class Summary:
    """The statistics of an extractor's features and logits for a set of pictures.

    Attributes:
        n: the number of pictures.
        mean, scatter: (D,) and (D, D) float64; the scatter is n - 1 times the covariance.
        counts: (K,) how often each class was the most likely one.
        sure: how many pictures have a class with a probability above 0.9.
        keep: for how many pictures all features and logits are kept. Some metrics need them.
    """

    def __init__(self, keep: int = 0) -> None:
        self.n = self.sure = 0
        self.keep = keep
        self.mean = self.scatter = torch.zeros((), dtype=torch.float64)
        self.counts = torch.zeros((), dtype=torch.long)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, logits: Tensor) -> None:
        """Add (B, D) features and (B, K) logits."""
        x, said = features.cpu().double(), logits.cpu().double()
        mean = x.mean(0)
        best, which = said.softmax(1).max(1)
        if left := max(0, self.keep - self.n):
            self.kept.append((x[:left].float(), said[:left].float()))
        counts = torch.bincount(which, minlength=said.shape[1])
        self.merge(len(x), int((best > SURE).sum()), mean, (x - mean).T @ (x - mean), counts)

    def merge(self, n: int, sure: int, mean: Tensor, scatter: Tensor, counts: Tensor) -> None:
        """Add the statistics of other pictures (Chan, Golub & LeVeque 1979, eq. 2.1)."""
        gap = mean - self.mean
        self.scatter = self.scatter + scatter + gap.outer(gap) * (self.n * n / (self.n + n))
        self.mean = self.mean + gap * (n / (self.n + n))
        self.counts = self.counts + counts
        self.sure += sure
        self.n += n

    @property
    def covariance(self) -> Tensor:
        """(D, D) the unbiased covariance of the features."""
        return self.scatter / (self.n - 1)

    @property
    def features(self) -> Tensor:
        """(k, D) float32 features of the kept pictures."""
        return torch.cat([torch.empty(0, *self.mean.shape), *(f for f, _ in self.kept)])

    @property
    def logits(self) -> Tensor:
        """(k, K) float32 logits of the kept pictures."""
        return torch.cat([torch.empty(0, *self.counts.shape), *(said for _, said in self.kept)])


def summarise(
    extractor: Extractor, pixels: Tensor, *, keep: int = 0, batch_size: int = 200
) -> Iterator[Summary]:
    """Summarise (N, C, H, W) uint8 pictures. Yields the same growing summary after each batch."""
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
    cache: Path | None = None,
    batch_size: int = 200,
) -> Iterator[Summary]:
    """Like `summarise`, but read the summary from a file if it was computed before.

    Args:
        key: data set, split and class of the pictures. The file's name has this key, the extractor
            and a hash of the pixels, so that changed pictures are computed anew.
        cache: the folder of the files. With None, or if it can't be written, no file is kept.
    """
    digest = hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()[:16]
    words = [*key, f"{len(pixels)}", *([f"keep{keep}"] if keep else []), extractor.name, digest]
    path = cache / (re.sub(r"[^\w.-]+", "_", "-".join(words)) + ".npz") if cache else None
    if path and (summary := _read(path, keep)):
        yield summary
        return
    for summary in summarise(extractor, pixels, keep=keep, batch_size=batch_size):
        if path and summary.n == len(pixels):
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
    """Read a summary. Returns None if the file is missing or broken; it is then made again."""
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
