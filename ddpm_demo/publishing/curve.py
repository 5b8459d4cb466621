"""The loss curve of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def loss_curve(log: Sequence[Mapping[str, Any]]) -> str:
    """An SVG plot of training and held-out loss (log scale) against pictures seen."""
    width, height, left, bottom = 640, 320, 64, 40
    lines = {"train": "#94a3b8", "held_out": "#0d9488"}
    values = [r[k] for r in log for k in lines if r[k]]
    low, high = np.log(min(values)) - 0.02, np.log(max(values)) + 0.02
    most = max(r["images"] for r in log)

    def at(seen: float, loss: float) -> str:
        x = left + (width - left - 16) * seen / most
        y = 16 + (height - bottom - 16) * (high - np.log(loss)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for loss in np.exp(np.linspace(low, high, 5)):
        y = at(0, loss).split(",")[1]
        parts.append(f'<path d="M{left} {y}H{width - 16}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{left - 8}" y="{y}" dy="4" text-anchor="end">{loss:.3f}</text>')
    for share in (0, 0.5, 1):
        x = at(most * share, values[0]).split(",")[0]
        text = f"{most * share / 1000:,.0f} k"
        parts.append(f'<text x="{x}" y="{height - 20}" text-anchor="middle">{text}</text>')
    middle = (left + width) // 2
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">pictures seen</text>')
    for i, (key, colour) in enumerate(lines.items()):
        points = " ".join(at(r["images"], r[key]) for r in log if r[key])
        style = f'fill="none" stroke="{colour}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {style}/>')
        name = {"train": "training", "held_out": "held out (EMA)"}[key]
        parts.append(f'<text x="{width - 130}" y="{36 + 18 * i}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])
