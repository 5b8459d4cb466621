"""How did the shipped models learn?: shows the log and the samples that their training kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from ddpm_demo.config import one_of
from ddpm_demo.experiments.asked import Recorded
from ddpm_demo.experiments.learn import loss_by_t
from ddpm_demo.experiments.tools import Panel, Plot, Report, Sheet, Table, Tools, Words
from ddpm_demo.inference.timing import spoken
from ddpm_demo.media import convert
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.zoo import available, facts, models_folder
from ddpm_demo.training.run_folder import SCALE, RunFolder

PICTURES, SHOWN = 16, 5  # pictures in a grid of the film, and how many grids are shown


def cost(asked: Recorded, per_call: Callable[[str, int], float]) -> float:
    return 1.0


def run(asked: Recorded, tools: Tools) -> Iterator[Report]:
    """Show the log of a shipped model as curves, and the samples of its training if there are any.

    Raises:
        ValueError: there is no such model, or it has no log.
    """
    with_log = [name for name in available() if RunFolder(models_folder() / name).log.is_file()]
    one_of("model", asked.model, tuple(with_log))
    files, info = RunFolder(models_folder() / asked.model), facts(asked.model).info
    rows = files.rows()
    panels: list[Panel] = [*_film(files, rows), _losses(rows), *loss_by_t(rows, 1000)]
    panels += [_table(info, rows), Words(_said(info, rows))]
    yield Report(1, "", tuple(panels), {"log": rows})


def _film(files: RunFolder, rows: list[dict[str, Any]]) -> Iterator[Sheet]:
    """Some grids of the film, including the first and the last, if there is a film."""
    if not files.film.is_file():
        return
    with Image.open(files.film) as film:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    chosen = sorted({round(k * (len(frames) - 1) / (SHOWN - 1)) for k in range(SHOWN)})
    grids = [convert.cut(frames[k], PICTURES, scale=SCALE) for k in chosen]
    seen = [0, *(row["images"] for row in rows)]
    names = tuple(f"{seen[k]:,} pictures" if k < len(seen) else "" for k in chosen)
    title = "Samples from the same noise as it learned"
    yield Sheet(title, tuple((grid,) for grid in grids), names, wide=8)


def _losses(rows: list[dict[str, Any]]) -> Plot:
    lines = {}
    for words, key in (("training", "train"), ("held out", "held_out")):
        known = [row for row in rows if row.get(key) is not None]
        if known:
            lines[words] = ([row["images"] for row in known], [row[key] for row in known])
    return Plot("Loss", line_plot(lines, "pictures seen", "loss", log=True))


def _table(info: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    said = {"pictures seen": f"{info.get('images', rows[-1]['images']):,}"}
    said |= {key: str(value) for key, value in (info.get("train") or {}).items() if value}
    chosen = ("pictures seen", "dataset", "loss", "batch_size", "lr", "decay", "ema")
    row = tuple(said.get(key, "–") for key in chosen)
    return Table("How it was trained", chosen, (row,))


def _said(info: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    base = info.get("base") or info.get("init")
    start = f"It began as {base}. " if base else "It began from nothing. "
    return (
        f"{start}Nothing is computed now: this is the log that the training wrote on another "
        f"machine in {spoken(rows[-1]['seconds'])}. `python -m ddpm_demo train` writes such a log.",
        "The held-out loss is of the averaged weights, on pictures that the network never learns.",
    )
