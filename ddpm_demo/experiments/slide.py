"""Writes the result of an experiment: a picture for a slide, JSON, and its film if it has one."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ddpm_demo.config import settings
from ddpm_demo.experiments import Experiment
from ddpm_demo.experiments.tools import (
    Code,
    Film,
    Hidden,
    Panel,
    Plot,
    Report,
    Sheet,
    Table,
    Words,
)
from ddpm_demo.media import convert, encode
from ddpm_demo.media.raster import INK, draw_svg, font, latin, wrapped
from ddpm_demo.models.facts import name_of

WIDTH, MARGIN, GAP = 1600, 40, 14
BIG, MIDDLE, SMALL = 40, 24, 20
INNER = WIDTH - 2 * MARGIN
PALE = "#475569"
FILM = 224  # pixels that a small picture's film is high


def command(row: Experiment, asked: Any, out: str | None = None) -> str:
    """The command line that makes the same result."""
    words, asked = ["python", "-m", "ddpm_demo", "experiment", row.name], _public(asked)
    for name, (field, about) in settings(row.settings).items():
        value = getattr(asked, name)
        if value == field.default:
            continue
        option = (about.option or name).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{option}", text]
    return shlex.join([*words, "--out", out or f"{row.name}.png"])


def _public(asked: Any) -> Any:
    """The settings without the path of the model, because others will see the slide."""
    model = getattr(asked, "model", None)
    return dataclasses.replace(asked, model=name_of(model)) if model else asked


def as_json(row: Experiment, asked: Any, report: Report) -> str:
    """The settings, the results and the command, as JSON."""
    about = {
        "experiment": row.name,
        "question": row.question,
        "settings": dataclasses.asdict(_public(asked)),
        "command": command(row, asked),
        "numbers": report.numbers,
    }
    return json.dumps(about, indent=1, ensure_ascii=False)


def film_of(report: Report) -> Film | None:
    """The film among the panels."""
    return next((panel for panel in report.panels if isinstance(panel, Film)), None)


def as_gif(film: Film) -> bytes:
    """It plays again and again."""
    scale = max(1, FILM // film.frames.shape[1])
    frames = [convert.grid(frame[None], 1, scale=scale) for frame in film.frames]
    return encode.encode(frames, "gif", fps=film.fps, hold=1 / film.fps)


def slide(row: Experiment, asked: Any, report: Report) -> np.ndarray:
    """Draw the question, all panels and the command as one frame, uint8 (H, W, 3)."""
    parts = [_text([row.question], BIG)]
    parts += _laid_out(report.panels)
    parts.append(_text([command(row, asked)], SMALL, PALE))
    height = 2 * MARGIN + sum(p.height for p in parts) + GAP * (len(parts) - 1)
    page = Image.new("RGB", (WIDTH, height), "white")
    y = MARGIN
    for part in parts:
        page.paste(part, (MARGIN, y))
        y += part.height + GAP
    return np.array(page)


def _laid_out(panels: Iterable[Panel]) -> list[Image.Image]:
    """The panels, one below the other, but plots side by side."""
    parts: list[Image.Image] = []
    for plots, group in groupby(panels, lambda panel: isinstance(panel, Plot)):
        drawn = [part for panel in group for part in _panel(panel)]
        parts += _rows(drawn) if plots else drawn
    return parts


def _rows(parts: list[Image.Image]) -> list[Image.Image]:
    """As many in a row as there is room for."""
    wide = max(part.width for part in parts) + GAP
    many = max(1, (INNER + GAP) // wide)
    rows = []
    for k in range(0, len(parts), many):
        row = parts[k : k + many]
        page = Image.new("RGB", (INNER, max(part.height for part in row)), "white")
        for j, part in enumerate(row):
            page.paste(part, (j * wide, 0))
        rows.append(page)
    return rows


def _plot(plot: Plot) -> Image.Image:
    """A plot below its title, above its note."""
    drawn = Image.fromarray(draw_svg(plot.svg))
    title = [_text([plot.title], MIDDLE, width=drawn.width)] if plot.title else []
    note = [_text([plot.note], SMALL, PALE, drawn.width)] if plot.note else []
    parts = [*title, drawn, *note]
    page = Image.new("RGB", (drawn.width, sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height
    return page


def _panel(panel: Panel) -> list[Image.Image]:
    if isinstance(panel, Film):
        return []
    if isinstance(panel, Plot):
        return [_plot(panel)]
    title = [_text([panel.title], MIDDLE)] if panel.title else []
    if isinstance(panel, Sheet):
        return [*title, _sheet(panel)]
    if isinstance(panel, Code):
        return [*title, _text(panel.lines, SMALL)]
    if isinstance(panel, Hidden):
        return _laid_out(panel.panels)
    if isinstance(panel, Table):
        return [*title, _table(panel), *_note(panel.note)]
    assert isinstance(panel, Words)
    return [*title, _text(panel.text, SMALL)]


def _note(words: str) -> list[Image.Image]:
    return [_text([words], SMALL, PALE)] if words else []


def _text(
    paragraphs: tuple[str, ...] | list[str], size: int, colour: str = INK, width: int = INNER
) -> Image.Image:
    lines = [line for words in paragraphs for line in wrapped(words, width, size)]
    step = round(1.35 * size)
    page = Image.new("RGB", (width, step * len(lines)), "white")
    draw = ImageDraw.Draw(page)
    for k, line in enumerate(lines):
        draw.text((0, k * step), line, colour, font(size))
    return page


def _sheet(sheet: Sheet) -> Image.Image:
    """Draw a sheet: rows and columns of equally large cells, with their words."""
    shown = [cell for row in sheet.cells for cell in row if cell is not None]
    if not shown:
        return Image.new("RGB", (INNER, 1), "white")
    side = 250 if sheet.rows else 0
    columns = max(len(row) for row in sheet.cells)
    frames = [convert.grid(cell, min(sheet.wide, len(cell))) for cell in shown]
    width, height = max(f.shape[1] for f in frames), max(f.shape[0] for f in frames)
    scale = max(1, min((INNER - side - GAP * columns) // (width * columns), 420 // height))
    step_x = width * scale + GAP
    head = 30 if sheet.columns else 0
    foot = 28 if any(any(row) for row in sheet.notes) else 8
    step_y = height * scale + foot
    page = Image.new("RGB", (INNER, head + step_y * len(sheet.cells)), "white")
    draw = ImageDraw.Draw(page)
    for j, words in enumerate(sheet.columns):
        draw.text((side + j * step_x, 0), latin(words), INK, font(SMALL))
    for i, row in enumerate(sheet.cells):
        y = head + i * step_y
        if i < len(sheet.rows):
            for k, line in enumerate(wrapped(sheet.rows[i], side - GAP, SMALL)):
                draw.text((0, y + 26 * k), line, INK, font(SMALL))
        for j, cell in enumerate(row):
            if cell is None:
                continue
            frame = convert.grid(cell, min(sheet.wide, len(cell)), scale=scale)
            page.paste(Image.fromarray(frame), (side + j * step_x, y))
            if sheet.notes and j < len(sheet.notes[i]):
                place = (side + j * step_x, y + height * scale)
                draw.text(place, latin(sheet.notes[i][j]), PALE, font(18))
    return page


def _table(table: Table) -> Image.Image:
    lines = [table.head, *table.rows]
    widths = [
        max(font(SMALL).getlength(latin(line[k])) for line in lines) + 36
        for k in range(len(table.head))
    ]
    page = Image.new("RGB", (INNER, 32 * len(lines)), "white")
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(lines):
        for k, words in enumerate(line):
            place = (sum(widths[:k]), 32 * i)
            draw.text(place, latin(words), PALE if i == 0 else INK, font(SMALL))
    return page
