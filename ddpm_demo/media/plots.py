"""Plots as SVG, for model cards and the app."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence


def line_plot(
    x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, *, log: bool = False
) -> str:
    """One line through the points, with ticks at both ends and the middle of each axis.

    Args:
        log: y on a logarithmic scale; points that are not above 0 are left out.

    Raises:
        ValueError: there is no point to draw.
    """
    width, height, left, bottom, top = 400, 228, 62, 44, 32  # so that a phone shows it readably
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b) and (b > 0 or not log)]
    if not points:
        raise ValueError("There is no point to draw.")
    scaled = [(a, math.log10(b) if log else b) for a, b in points]
    low_x, high_x = min(a for a, _ in scaled), max(a for a, _ in scaled)
    low_y, high_y = min(b for _, b in scaled), max(b for _, b in scaled)

    def place(a: float, b: float) -> tuple[float, float]:
        across, up = (a - low_x) / (high_x - low_x or 1), (b - low_y) / (high_y - low_y or 1)
        return left + (width - left - 24) * across, height - bottom - (height - bottom - top) * up

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        a, b = low_x + share * (high_x - low_x), low_y + share * (high_y - low_y)
        at_x, at_y = place(a, b)
        shown = 10**b if log else b
        parts.append(f'<path d="M{left} {at_y:.1f}H{width - 24}" stroke="#e2e8f0"/>')
        parts.append(
            f'<text x="{left - 8}" y="{at_y:.1f}" dy="4" text-anchor="end">{shown:.3g}</text>'
        )
        parts.append(f'<text x="{at_x:.1f}" y="{height - 26}" text-anchor="middle">{a:.4g}</text>')
    line = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in scaled)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0d9488" stroke-width="2"/>')
    parts.append(
        f'<text x="{width // 2}" y="{height - 8}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
    )
    parts.append(f'<text x="8" y="15">{html.escape(y_label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def bar_plot(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> str:
    """Shares, 0 to 1, of each name side by side, as bars to the right with their percentage.

    Args:
        shares: up to three lists, as long as `names`, by what the legend calls them.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not names or not shares:
        raise ValueError("There is no bar to draw.")
    width, left, top, bar = 400, 100, 30, 11
    row = bar * len(shares) + 9
    height = top + row * len(names) + 4
    most = max(max(values) for values in shares.values()) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for k, (label, values) in enumerate(shares.items()):
        colour, x = ("#0d9488", "#94a3b8", "#d97706")[k], left + 120 * k
        parts.append(f'<circle cx="{x + 5}" cy="14" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="18">{html.escape(label)}</text>')
        for i, (share, _) in enumerate(zip(values, names, strict=True)):
            y, length = top + row * i + bar * k, (width - left - 52) * share / most
            parts.append(
                f'<rect class="bar" x="{left}" y="{y}" width="{length:.1f}" height="{bar - 1}" '
                f'fill="{colour}"/>'
            )
            parts.append(
                f'<text x="{left + length + 5:.1f}" y="{y + 9}" font-size="10">'
                f"{100 * share:.1f} %</text>"
            )
    for i, name in enumerate(names):
        middle = top + row * i + bar * len(shares) / 2 + 4
        parts.append(
            f'<text x="{left - 8}" y="{middle:.1f}" text-anchor="end">{html.escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])
