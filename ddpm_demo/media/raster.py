"""Draws the SVG plots of `plots`, and words, as pixels for a picture on a slide."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PALE = "#1e293b", "#dbe1e8"
# Pillow's own font has only Latin letters, so other letters are written out.
LATIN = {
    "x̂₀": "x0_hat",
    "ε̂": "eps_hat",
    "v̂": "v_hat",
    "ᾱ": "alpha_bar",
    "x₀": "x_0",
    "√": "sqrt ",
    "α": "alpha",
    "β": "beta",
    "ε": "eps",
    "η": "eta",
    "σ": "sigma",
    "λ": "lambda",
    "−": "-",
    "–": "-",
    "×": "x",
    "≤": "<=",
    "≈": "about ",
    "→": "to",
    "²": "^2",
    "₀": "0",
    "·": "-",
}


def latin(words: str) -> str:
    """Write out the letters that Pillow's font lacks."""
    for letters, written in LATIN.items():
        words = words.replace(letters, written)
    return words


@functools.cache
def font(size: float) -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def wrapped(words: str, width: float, size: float) -> list[str]:
    """Break words into lines of at most `width` pixels."""
    lines, letters = [""], font(size)
    for word in latin(words).split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_svg(svg: str, scale: float = 2.0) -> np.ndarray:
    """Draw a plot of `plots` as a frame, uint8 (H, W, 3), dark on white.

    It supports only what `plots` uses: text, polylines, circles, rectangles, and lines as "Mx yHx".
    """
    root = ElementTree.fromstring(svg)
    _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
    page = Image.new("RGB", (round(width * scale), round(height * scale)), "white")
    draw = ImageDraw.Draw(page)
    for part in root:
        _draw(draw, part.tag.partition("}")[2], part.attrib, part.text or "", scale)
    return np.array(page)


def _draw(
    draw: ImageDraw.ImageDraw, kind: str, about: Mapping[str, str], words: str, scale: float
) -> None:
    def at(*names: str) -> list[float]:
        return [scale * float(about.get(name, 0)) for name in names]

    colour = _colour(about)
    if kind == "text":
        anchor = {"middle": "ms", "end": "rs"}.get(about.get("text-anchor", ""), "ls")
        size = font(scale * float(about.get("font-size", 12)))
        x, y = at("x", "y")
        draw.text((x, y), latin(words), INK, size, anchor)
    elif kind == "polyline":
        points = [tuple(scale * float(v) for v in p.split(",")) for p in about["points"].split()]
        draw.line(points, colour, round(scale * float(about.get("stroke-width", 1))))
    elif kind == "circle":
        x, y, r = at("cx", "cy", "r")
        draw.ellipse((x - r, y - r, x + r, y + r), colour)
    elif kind == "rect":
        x, y, width, height = at("x", "y", "width", "height")
        draw.rectangle((x, y, x + width, y + height), colour)
    elif kind == "path":
        start, _, end = about["d"][1:].partition("H")
        x, y = (scale * float(v) for v in start.split())
        draw.line((x, y, scale * float(end), y), PALE, round(scale))


def _colour(about: Mapping[str, str]) -> str:
    """The colour of a shape. Transparency makes it paler."""
    found = about.get("fill", "none")
    found = about.get("stroke", INK) if found == "none" else found
    opacity = float(about.get("fill-opacity", about.get("stroke-opacity", 1)))
    if not found.startswith("#") or opacity == 1:
        return found if found.startswith("#") else INK
    levels = (int(found[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(255 + opacity * (v - 255)):02x}" for v in levels)
