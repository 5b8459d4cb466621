"""What an experiment shows: panels of pictures, curves, code and numbers, without a page in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns.

    Attributes:
        cells: by row and column, each uint8 (n, H, W, C), which are shown side by side, or None for
            what is still to come.
        rows, columns: what stands beside and above them.
        notes: below each picture of a cell, or below the cell; by row and column.
        wide: pictures in a line of a cell.
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
    """A plot as `media.plots` draws it."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Lines of our source: "-" begins the right ones, "+" the wrong ones."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Numbers in rows."""

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
    """Panels that are shown when somebody asks for them; `title` says what they are."""

    title: str
    panels: tuple[Sheet | Plot | Code | Table | Words, ...]


Panel = Sheet | Film | Plot | Code | Table | Words | Hidden


@dataclass(frozen=True)
class Report:
    """What there is to show so far.

    Attributes:
        done: how much of the work is done, 0 to 1.
        line: what is being done now.
        panels: pictures first, numbers second.
        numbers: what was measured, for JSON.
    """

    done: float
    line: str = ""
    panels: tuple[Panel, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
