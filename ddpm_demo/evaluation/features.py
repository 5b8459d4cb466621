"""What a network sees in pictures: features and logits, gathered into a `Summary`.

An extractor turns pictures into features and logits: one of our classifiers (`classifier.py`), or
Inception through torch-fidelity (`inception.py`). A `Summary` gathers them batch by batch, so that
sampling and measuring can take turns and no set of pictures has to fit into memory.
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

from ddpm_demo.files import write_atomically

SURE = 0.9  # a probability above this counts as sure


class MetricError(ValueError):
    """A metric can't be computed; the message is one sentence that says why and what to do."""


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
    cache: Path | None = None,
    batch_size: int = 200,
) -> Iterator[Summary]:
    """As `summarise`, but from the second time on read from a file.

    Args:
        key: what the pictures are: data set, split and class. The file's name has it, along with
            the extractor and a hash of the pixels, so that a folder may change.
        cache: the folder of the files, or None. One that can't be written is done without.
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
