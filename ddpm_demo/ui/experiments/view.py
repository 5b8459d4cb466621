"""The panels of an experiment as HTML."""

from __future__ import annotations

import base64
import html
from typing import Any

from ddpm_demo.experiments import Experiment
from ddpm_demo.experiments.slide import FILM, as_gif, as_json, slide
from ddpm_demo.experiments.tools import Code, Film, Hidden, Panel, Plot, Report, Sheet, Table
from ddpm_demo.media import convert, encode

ROOM = 820  # pixels for all cells of a row
PADDING = 10  # pixels around a cell, as in experiments.css
SHOWN = 112  # pixels of a small picture, if there is room


def panels(name: str, report: Report) -> str:
    """Everything to show so far, marked with the name of its experiment."""
    inner = "".join(_panel(panel) for panel in report.panels)
    return f'<div data-experiment="{name}">{inner}</div>'


def saved(row: Experiment, asked: Any, report: Report) -> str:
    """Two links that save the result: one for a picture, and one for the numbers."""
    picture = encode.encode([slide(row, asked, report)], "png")
    numbers = as_json(row, asked, report).encode()
    return (
        '<p class="experiment-save">'
        + _link(f"{row.name}.png", "image/png", picture, "Save as one picture")
        + _link(f"{row.name}.json", "application/json", numbers, "Save the numbers")
        + "</p>"
    )


def _link(name: str, kind: str, data: bytes, words: str) -> str:
    return f'<a download="{name}" href="{_data(kind, data)}">{words}</a>'


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _panel(panel: Panel) -> str:
    if isinstance(panel, Hidden):
        inner = "".join(map(_panel, panel.panels))
        return f"<details><summary>{html.escape(panel.title)}</summary>{inner}</details>"
    title = f"<h3>{html.escape(panel.title)}</h3>" if panel.title else ""
    if isinstance(panel, Sheet):
        body = _sheet(panel)
    elif isinstance(panel, Film):
        body = _film(panel)
    elif isinstance(panel, Plot):
        body = panel.svg + _note(panel.note)
    elif isinstance(panel, Code):
        body = f"<pre>{''.join(map(_code, panel.lines))}</pre>"
    elif isinstance(panel, Table):
        body = _table(panel) + _note(panel.note)
    else:
        body = "".join(f"<p>{html.escape(words)}</p>" for words in panel.text)
    kind = type(panel).__name__.lower()
    return f'<section class="experiment-{kind}">{title}{body}</section>'


def _note(words: str) -> str:
    return f'<p class="note">{html.escape(words)}</p>' if words else ""


def _code(line: str) -> str:
    kind = {"+": "wrong", "-": "right"}.get(line[:1], "")
    return f'<span class="{kind}">{html.escape(line)}</span>\n'


def _sheet(sheet: Sheet) -> str:
    head = "".join(f"<th>{html.escape(words)}</th>" for words in sheet.columns)
    head = f"<tr>{'<td></td>' * bool(sheet.rows)}{head}</tr>" if head else ""
    rows = []
    for i, row in enumerate(sheet.cells):
        name = f"<th>{html.escape(sheet.rows[i])}</th>" if i < len(sheet.rows) else ""
        cells = []
        for j, cell in enumerate(row):
            notes = sheet.notes[i] if i < len(sheet.notes) else ()
            about = [sheet.rows[i : i + 1], sheet.columns[j : j + 1], notes[j : j + 1]]
            cells.append(_cell(sheet, cell, [words for part in about for words in part if words]))
        rows.append(f"<tr>{name}{''.join(cells)}</tr>")
    kind = "rows" if max(map(len, sheet.cells), default=0) < 2 else "grid"
    return f'<div class="scroll"><table class="{kind}">{head}{"".join(rows)}</table></div>'


def _film(film: Film) -> str:
    """A film that plays. Those who asked for little motion see only its first frame."""
    gif = as_gif(film)
    first = encode.encode([convert.grid(film.frames[:1], 1)], "png")
    still = f'media="(prefers-reduced-motion: reduce)" srcset="{_data("image/png", first)}"'
    shown = f'<img src="{_data("image/gif", gif)}" alt="{html.escape(film.title)}" width="{FILM}">'
    save = _link("film.gif", "image/gif", gif, "Save as GIF")
    return f"<picture><source {still}>{shown}</picture><p>{save}</p>"


def _cell(sheet: Sheet, cell: Any, about: list[str]) -> str:
    """A cell. If there is one note for the cell, it stands below."""
    if cell is None:
        return '<td class="coming"></td>'
    frame = convert.grid(cell, min(sheet.wide, len(cell)))
    picture = _data("image/png", encode.encode([frame], "png"))
    width, columns = frame.shape[1], max(map(len, sheet.cells))
    largest = max(4, SHOWN // cell.shape[1])
    scale = max(1, min(largest, (ROOM // columns - PADDING) // width))
    said = html.escape(", ".join(about) or sheet.title)
    note = about[-1] if sheet.notes and len(about) > bool(sheet.rows) + bool(sheet.columns) else ""
    return (
        f'<td><img src="{picture}" alt="{said}" style="width: {scale * width}px">'
        f"<small>{html.escape(note)}</small></td>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(words)}</th>" for words in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(words)}</td>" for words in row) + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
