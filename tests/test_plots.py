"""Plots: what is drawn where, and that they suit any page."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from ddpm_demo.media.plots import as_file, bar_plot, line_plot


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).findall(".//{*}text")]


@pytest.mark.parametrize("last", [1, 2, 3, 7, 100, 400, 99_999])
def test_steps_are_whole_numbers(last: int) -> None:
    steps = range(last + 1)
    svg = line_plot({"": (steps, [0.5 + 1 / (k + 1) for k in steps])}, "step", "loss")
    below = [t for t in ET.fromstring(svg).findall(".//{*}text") if t.get("y") == "202.0"]
    values = [int((t.text or "").replace(",", "")) for t in below]
    assert values[0] == 0
    assert 2 <= len(values) <= 6
    assert values[-1] <= last
    assert len({b - a for a, b in pairwise(values)}) == 1


def test_colours_and_font_are_the_page_s() -> None:
    plots = (line_plot({"": ([0, 1], [1, 2])}, "x", "y"), bar_plot(["cat"], {"samples": [1.0]}))
    for svg in plots:
        assert "font-family" not in svg
        assert "#ffffff" not in svg
        assert "<style" not in svg  # it would be the whole page's
        assert all(
            t.get("fill") == "currentColor" for t in ET.fromstring(svg).findall(".//{*}text")
        )
        alone = as_file(svg)
        assert ET.fromstring(alone).find("{*}style") is not None
        assert "prefers-color-scheme:dark" in alone


def test_a_smoothed_line_over_pale_dots() -> None:
    values = [float(k % 2) for k in range(120)]  # the mean is a half everywhere but at the ends
    svg = ET.fromstring(line_plot({"": (range(120), values)}, "step", "loss", smooth=True))
    assert len(svg.findall(".//{*}circle")) == 120
    line = svg.find(".//{*}polyline")
    assert line is not None
    heights = [float(p.split(",")[1]) for p in (line.get("points") or "").split()]
    assert len(heights) == 120
    assert max(heights[10:-10]) - min(heights[10:-10]) < 0.15 * (228 - 46 - 34)
    many = line_plot({"": (range(10_000), [1.0] * 10_000)}, "step", "loss", smooth=True)
    assert many.count("<circle") <= 240


def test_lines_have_a_legend() -> None:
    svg = line_plot({"training": ([1, 2], [1, 2]), "held <out>": ([1, 2], [3, 4])}, "x", "y")
    assert {"training", "held <out>"} <= set(words(svg))
    assert svg.count("<polyline") == 2
