"""Statistics of the data for the shipped classifiers. With them, samples can be measured without
the data.

    python -m ddpm_demo.evaluation.references mnist

This writes `checkpoints/classifiers/NAME-SPLIT-N.npz` for both splits of the data set. The file has
the mean and scatter of the features for each class, of N pictures in all, in float32. NAME has a
hash of the weights, so a classifier never uses the statistics of an older one.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ddpm_demo import data as d
from ddpm_demo.config import number, one_of
from ddpm_demo.evaluation.classifier import Classifier, load_classifier
from ddpm_demo.evaluation.features import Extractor, MetricError, Summary, reference, summarise
from ddpm_demo.machine.files import expand, write_atomically
from ddpm_demo.models.zoo import models_folder

SPLITS = ("train", "test")


def write(judge: Classifier, data: d.Images, split: str, folder: Path) -> Path:
    """Write one file with a classifier's statistics of the pictures of each class.

    Raises:
        OSError: the file can't be written.
    """
    found = []
    for name in data.classes:
        *_, summary = summarise(judge, data.only(name).pixels)
        found.append(summary)
    i, j = np.triu_indices(judge.dim)  # a scatter is symmetric
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        n=np.array([[s.n, s.sure] for s in found]),
        counts=np.stack([s.counts.numpy() for s in found]),
        mean=np.stack([s.mean.numpy() for s in found]).astype(np.float32),
        scatter=np.stack([s.scatter.numpy()[i, j] for s in found]).astype(np.float32),
    )
    path = folder / f"{judge.name}-{split}-{len(data)}.npz"
    write_atomically(path, buffer.getvalue())
    return path


def read(judge: Classifier, split: str, label: int | None = None) -> Summary:
    """Read a shipped classifier's statistics of a split of its data set, or of one class of it.

    Raises:
        MetricError: there is no file for these weights.
        ValueError: there is no such split or class.
    """
    one_of("split", split, SPLITS)
    if label is not None:
        number("class", label, 0, len(judge.config.classes) - 1, whole=True)
    path = next((models_folder() / "classifiers").glob(f"{judge.name}-{split}-*.npz"), None)
    if path is None:
        raise MetricError(
            f"There are no statistics of the {split} pictures by {judge.name}; with the data, "
            f"`python -m ddpm_demo.evaluation.references {judge.info.get('dataset', 'NAME')}` "
            "makes them."
        )
    with np.load(path) as file:
        part = {k: torch.from_numpy(file[k]) for k in file}
    i, j = np.triu_indices(judge.dim)
    summary = Summary()
    for k in range(len(part["n"])) if label is None else [label]:
        scatter = torch.zeros(judge.dim, judge.dim, dtype=torch.float64)
        scatter[i, j] = scatter[j, i] = part["scatter"][k].double()
        n, sure = part["n"][k].tolist()
        summary.merge(n, sure, part["mean"][k].double(), scatter, part["counts"][k])
    return summary


def shipped(
    extractor: Extractor, dataset: str, split: str, only: str | None = None
) -> Summary | None:
    """Like `read`, with the class by name. None if there are no statistics of these data.

    Raises:
        ValueError: there is no such class.
    """
    if not isinstance(extractor, Classifier) or extractor.info.get("dataset") != dataset:
        return None
    classes = tuple(extractor.config.classes)
    if only is not None:
        one_of("class", only, classes)
    try:
        return read(extractor, split, None if only is None else classes.index(only))
    except MetricError:
        return None


@dataclass(frozen=True)
class Source:
    """The pictures that samples are compared with.

    Attributes:
        dataset, split: the data set, and "train" or "test".
        only: the one class to compare with; None is all.
        load: loads the pictures.
    """

    dataset: str
    split: str
    only: str | None
    load: Callable[[], d.Images]

    def walk(
        self, extractor: Extractor, *, keep: int = 0, cache: Path | None = None
    ) -> Iterator[tuple[Summary, int]]:
        """Get an extractor's statistics of the pictures. Compute them if they aren't on this disk.

        Args:
            keep: for how many pictures all features are kept.
            cache: a folder for the statistics.

        Yields:
            The growing summary, and the number of all pictures.
        """
        found = None if keep else shipped(extractor, self.dataset, self.split, self.only)
        if found:
            yield found, found.n
            return
        pixels = self.load().pixels
        key = (self.dataset.replace("folder:", "folder-"), self.split, self.only or "all")
        for summary in reference(extractor, pixels, key, keep=keep, cache=cache):
            yield summary, len(pixels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the statistics of both splits for a shipped classifier. Returns 0, 1 or 2."""
    p = argparse.ArgumentParser(
        prog="python -m ddpm_demo.evaluation.references", description=main.__doc__
    )
    p.add_argument("classifier", help="a shipped one, by name")
    p.add_argument("--data-dir", type=expand)
    o = p.parse_args(arguments)
    try:
        judge = load_classifier(o.classifier)
        name, folder, written = judge.info["dataset"], models_folder() / "classifiers", set()
        for split in SPLITS:
            data = d.load(name, o.data_dir, train=split == "train")
            written.add(write(judge, data, split, folder))
        for stale in set(folder.glob(f"{name}-*.npz")) - written:
            stale.unlink()
        sys.stdout.write("\n".join(map(str, sorted(written))) + "\n")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"ddpm_demo: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
