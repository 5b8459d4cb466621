"""What an experiment shows: panels of pictures, curves, code and numbers. No Gradio is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
