"""Draws plots as SVG, for model cards and the app.

Words and axes take the colour and the font of the page around them, so they suit light and dark
pages. `as_file` gives a plot its own colour and font, for a file that stands alone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

COLOURS = ("#0d9488", "#94a3b8", "#d97706")
STACKED = (*COLOURS, "#4f46e5", "#be185d", "#65a30d", "#0369a1", "#a16207")  # for `stack_plot`
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 340, 228, 66, 24, 46, 34
TEXT = 14  # units of a plot's text: on a phone, one is about a pixel
DOTS = 240  # the most dots of a smoothed line; with more points, neighbours are averaged
SMOOTH = 12  # a smoothed line averages over a window of 1/12 of all points

Points = list[tuple[float, float]]


def line_plot(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    smooth: bool = False,
) -> str:
    """Draw up to three lines. If there are several, a legend names them.

    Args:
        lines: the x and y of each line's points, by its name.
        log: draw y on a logarithmic scale, and leave out points that are not above 0.
        smooth: draw the points as pale dots and their running means as a line, with y from 0.

    Raises:
        ValueError: there is no point to draw.
    """
    drawn = {
        name: [(a, math.log10(b) if log else b) for a, b in zip(*xy, strict=True) if _fits(b, log)]
        for name, xy in lines.items()
    }
    if smooth:
        drawn = {name: _thinned(points, DOTS) for name, points in drawn.items()}
    every = [point for points in drawn.values() for point in points]
    if not every:
        raise ValueError("There is no point to draw.")
    (low_x, high_x), (low_y, high_y) = ((min(v), max(v)) for v in zip(*every, strict=True))
    if smooth:
        low_y = min(low_y, 0)

    def place(a: float, b: float) -> tuple[float, float]:
        across, up = (a - low_x) / (high_x - low_x or 1), (b - low_y) / (high_y - low_y or 1)
        return LEFT + (WIDTH - LEFT - RIGHT) * across, HEIGHT - BOTTOM - (
            HEIGHT - BOTTOM - TOP
        ) * up

    whole = all(a == round(a) for a, _ in every)
    parts = [_text(WIDTH / 2, HEIGHT - 8, x_label, "middle"), _text(8, 15, y_label)]
    for a in _ticks(low_x, high_x, whole):
        parts.append(_text(place(a, low_y)[0], HEIGHT - 26, f"{a:,.10g}", "middle"))
    for b in (low_y, (low_y + high_y) / 2, high_y) if log else _ticks(low_y, high_y):
        y = place(low_x, b)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke-opacity=".2"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10**b if log else b:.3g}", "end"))
    for k, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[k]
        if smooth:
            dots = (place(a, b) for a, b in points)
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.5" fill="{colour}" '
                      'fill-opacity=".3" stroke="none"/>' for x, y in dots]  # fmt: skip
            points = _running_means(points)
        line = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(drawn) > 1:
            parts += _legend(k, name, WIDTH - RIGHT - 92 * (len(drawn) - k), 15)
    return _svg(HEIGHT, parts)


def bar_plot(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> str:
    """Draw horizontal bars for each name, with their percentages.

    Args:
        shares: up to three lists of shares, 0 to 1, each as long as `names`; the keys are for the
            legend.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not names or not shares:
        raise ValueError("There is no bar to draw.")
    left, top, bar = 100, 30, 15
    row = bar * len(shares) + 9
    most = max(max(values) for values in shares.values()) or 1.0
    parts = []
    for k, (label, values) in enumerate(shares.items()):
        parts += _legend(k, label, 8 + 110 * k, 18)
        for i, (share, _) in enumerate(zip(values, names, strict=True)):
            y, length = top + row * i + bar * k, (WIDTH - left - 62) * share / most
            parts.append(
                f'<rect class="bar" x="{left}" y="{y}" width="{length:.1f}" height="{bar - 1}" '
                f'fill="{COLOURS[k]}" stroke="none"/>'
            )
            parts.append(_text(left + length + 5, y + 12, f"{100 * share:.1f} %"))
    for i, name in enumerate(names):
        parts.append(_text(left - 8, top + row * i + bar * len(shares) / 2 + 4, name, "end"))
    return _svg(top + row * len(names) + 4, parts)


def stack_plot(ts: Sequence[int], shares: Mapping[str, Sequence[float]], label: str) -> str:
    """Draw a column for each t, from left to right, that stacks shares which add up to 1.

    Args:
        ts: the falling t of the columns.
        shares: up to eight lists of shares, each as long as `ts`; the keys are for the legend.
        label: the label of the axis.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not ts or not shares:
        raise ValueError("There is no column to draw.")
    top = TOP + 20 * ((len(shares) - 1) // 3)
    wide, tall = (WIDTH - LEFT - RIGHT) / len(ts), HEIGHT - BOTTOM - TOP
    parts = []
    for i in range(len(ts)):
        y = top + float(tall)
        for k, values in enumerate(shares.values()):
            y -= tall * values[i]
            parts.append(
                f'<rect x="{LEFT + wide * i:.2f}" y="{y:.2f}" width="{wide + 0.3:.2f}" '
                f'height="{tall * values[i]:.2f}" fill="{STACKED[k]}" stroke="none"/>'
            )
    for k, name in enumerate(shares):
        parts += _legend(k, name, LEFT + 88 * (k % 3), 15 + 20 * (k // 3), STACKED[k])
    for share in (0, 0.5, 1):
        y = top + tall * (1 - share)
        parts.append(_text(LEFT - 8, y + 4, f"{100 * share:.0f} %", "end"))
    for i in sorted({0, len(ts) // 2, len(ts) - 1}):
        x, words = LEFT + wide * (i + 0.5), f"{label} = {ts[i]}"
        parts.append(_text(x, top + tall + 18, words, "middle"))
    return _svg(top + tall + 28, parts)


def plane_plot(
    points: Mapping[str, Points | list[list[float]]],
    paths: Sequence[Sequence[Sequence[float]]] = (),
    arrows: Mapping[str, Sequence[Sequence[float]]] | None = None,
    reach: float = 2.6,
) -> str:
    """Draw points of the plane, and paths beneath them.

    Args:
        points: up to three sets of points, by name.
        paths: lines, each as a list of points.
        arrows: sets of (x, y, dx, dy), by name. A dot marks where an arrow begins.
        reach: the plot goes from -reach to reach.
    """
    side, top = HEIGHT - 8, 4 + 20 * len(arrows or {})
    left = (WIDTH - side) / 2

    def place(x: float, y: float) -> tuple[float, float]:
        a, b = (min(max(v, -reach), reach) / reach for v in (x, y))
        return left + side * (1 + a) / 2, top + side * (1 - b) / 2

    def drawn(way: Sequence[Sequence[float]], colour: str, width: float) -> str:
        line = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in way)
        return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def dot(p: Sequence[float], colour: str, size: float) -> str:
        x, y = place(p[0], p[1])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}" stroke="none"/>'

    parts = [drawn(way, COLOURS[1], 0.8) for way in paths]
    for k, cloud in enumerate(points.values()):
        parts += [dot(p, COLOURS[k], 1.6) for p in cloud]
    for k, (name, field) in enumerate((arrows or {}).items()):
        parts += [drawn([(x, y), (x + a, y + b)], COLOURS[2 * k], 1.4) for x, y, a, b in field]
        parts += [dot(p, COLOURS[2 * k], 1.2) for p in field]
        parts += _legend(2 * k, name, 8, 16 + 20 * k)
    return _svg(top + side + 4, parts)


def as_file(svg: str) -> str:
    """A plot as a separate file. It follows the reader's choice of light or dark."""
    style = "svg{color:#1e293b;font-family:sans-serif}"
    style += "@media (prefers-color-scheme:dark){svg{color:#e2e8f0}}"
    start, _, rest = svg.partition("\n")
    return f"{start}\n<style>{style}</style>\n{rest}"


def _svg(height: float, parts: Iterable[str]) -> str:
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
    start += f'font-size="{TEXT}" fill="none" stroke="currentColor">'
    return "\n".join([start, *parts, "</svg>\n"])


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'fill="currentColor" stroke="none">{html.escape(words)}</text>'
    )


def _legend(k: int, name: str, x: float, y: float, colour: str = "") -> list[str]:
    fill = colour or COLOURS[k]
    dot = f'<circle cx="{x + 5}" cy="{y - 4}" r="5" fill="{fill}" stroke="none"/>'
    return [dot, _text(x + 15, y, name)]


def _fits(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Two to five round numbers from low to high. Steps are 1, 2 or 5 times a power of ten."""
    if high == low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(m * power for m in (1, 2, 5, 10) if 4.5 * m * power >= high - low)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _thinned(points: Points, most: int) -> Points:
    """Average groups of points, so that at most `most` remain. x is the last of each group."""
    width = -(-len(points) // most) or 1
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(group[-1][0], sum(b for _, b in group) / len(group)) for group in groups]


def _running_means(points: Points) -> Points:
    reach = len(points) // SMOOTH // 2
    around = [points[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [
        (a, sum(b for _, b in near) / len(near))
        for (a, _), near in zip(points, around, strict=True)
    ]
