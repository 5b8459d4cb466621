"""What the page and the handlers of the tab "Forward noising" both know."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

EXAMPLES = sorted(str(path) for path in (Path(__file__).parents[2] / "examples").glob("*.jpg"))
SIZES, SIZE = (32, 64, 128, 256), 128
VIEWS = {"both": ("linear", "cosine"), "linear": ("linear",), "cosine": ("cosine",)}


def words_of(timesteps: Iterable[int]) -> str:
    """A list of timesteps as it stands in the box."""
    return ",".join(map(str, timesteps))
