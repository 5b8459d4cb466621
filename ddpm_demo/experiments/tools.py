"""What an experiment is given, its tools, and what it shows, a report. No Gradio is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_demo.config import SampleConfig, require
from ddpm_demo.data import Images, data_dir, fitted, packed
from ddpm_demo.data import load as load_data
from ddpm_demo.diffusion import Denoiser, Step
from ddpm_demo.inference.generate import generate
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns.

    Attributes:
        cells: the cells by row and column. Each has n pictures, uint8 (n, H, W, C), or is None if
            they are still to come.
        rows, columns: words beside the rows and above the columns.
        notes: words below each picture of a cell or below the cell, by row and column.
        wide: how many pictures of a cell are in one line.
    """

    title: str
    cells: tuple[tuple[np.ndarray | None, ...], ...]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[tuple[str, ...], ...] = ()
    wide: int = 2


@dataclass(frozen=True)
class Film:
    """Frames that play again and again, uint8 (N, H, W, C); slides have none."""

    title: str
    frames: np.ndarray
    fps: float


@dataclass(frozen=True)
class Plot:
    """A plot that `media.plots` has drawn."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Lines of our source. "-" begins a right line, "+" a wrong one."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Words:
    """Paragraphs."""

    text: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Hidden:
    """Panels that are hidden until somebody opens them. `title` says what they are."""

    title: str
    panels: tuple[Sheet | Plot | Code | Table | Words, ...]


Panel = Sheet | Film | Plot | Code | Table | Words | Hidden


@dataclass(frozen=True)
class Report:
    """Everything that an experiment can show so far.

    Attributes:
        done: the share of the work that is done, 0 to 1.
        line: what the experiment does now.
        panels: the panels, pictures first.
        numbers: the results, for JSON.
    """

    done: float
    line: str = ""
    panels: tuple[Panel, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


ON_DISK = {"cifar10": "cifar-10-batches-py", "fashion_mnist": "FashionMNIST/raw"}


def pictures(dataset: str, size: int, channels: int, *, train: bool = True) -> Images:
    """Load a data set that is on this disk already. MNIST comes with the program.

    Raises:
        ValueError: the data set isn't here. The message says how to get it.
    """
    if dataset == "mnist" and packed.FILE.is_file():
        found = packed.mnist(train)
        return replace(found, pixels=fitted(found.pixels, size, channels).contiguous())
    folder = data_dir() / ON_DISK.get(dataset, "MNIST/raw")
    if not dataset.startswith("folder:") and not folder.is_dir():
        raise ValueError(
            f"The pictures of {dataset} are not on this disk; `python -m ddpm_demo evaluate` with "
            "a model of them downloads them once."
        )
    return load_data(dataset, train=train, size=size, channels=channels)


@dataclass(frozen=True)
class Tools:
    """Where an experiment gets its models and its data.

    Attributes:
        load: loads a model by its name.
        denoiser: makes the denoiser (see `inference.generate`).
        data: loads a data set, like `pictures`.
        bf16: run networks in bfloat16.
        device: the device to train on.
        folder: the folder for the model that the experiment trains; None keeps nothing.
    """

    load: Callable[[str], Checkpoint] = load_checkpoint
    denoiser: Callable[..., Denoiser] = Denoiser
    data: Callable[..., Images] = pictures
    bf16: bool = False
    device: Any = "cpu"
    folder: Path | None = None

    def generate(self, checkpoint: Checkpoint, run: SampleConfig, **options: Any) -> Iterator[Step]:
        """The steps of a run, as in `inference.generate`."""
        return generate(checkpoint, run, denoiser=self.denoiser, bf16=self.bf16, **options)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's t.

    The quantile of t is computed from the Gaussian's by an expansion in 1/nu (Abramowitz & Stegun
    26.7.5). It is right to 3 % for three values, and to 1 % for more.

    Raises:
        ValueError: there are fewer than three values.
    """
    n = len(values)
    require(n >= 3, "number of values", n, "3 or more")
    mean, z, nu = sum(values) / n, 1.959964, n - 1
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = z + g1 / nu + g2 / nu**2 + g3 / nu**3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / nu)
    return mean, t * deviation / math.sqrt(n)


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, if k of n were seen (Wilson 1927)."""
    z = 1.959964
    middle, width = k + z**2 / 2, z * math.sqrt(k * (n - k) / n + z**2 / 4)
    low, high = (middle - width) / (n + z**2), (middle + width) / (n + z**2)
    return max(0.0, low), min(1.0, high)


def spoken(mean: float, half: float) -> str:
    """A mean with its interval, such as "0.123 ± 0.045"."""
    return f"{mean:.3f} ± {half:.3f}"


def unseen(n: int) -> str:
    """What is said where two numbers differ by less than their intervals."""
    return f"no difference that can be seen at n = {n:,}"


def alike(found: Mapping[str, tuple[float, float]], n: int) -> str:
    """Which of some numbers is least, and which can't be told from it.

    Args:
        found: mean and half of the interval, by name.
        n: how many values each is the mean of.
    """
    best = min(found, key=lambda name: found[name][0])
    mean, half = found[best]
    others = [k for k, (m, h) in found.items() if k != best and m - mean < h + half]
    if not others:
        return f"{best} is the least."
    return f"{best} is the least; between it and {', '.join(others)}, {unseen(n)}."
