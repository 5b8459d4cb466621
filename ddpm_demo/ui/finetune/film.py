"""What the player and the plot show of a fine-tuning."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_demo.media.plots import line_plot
from ddpm_demo.training.run_folder import pace
from ddpm_demo.ui.components import player
from ddpm_demo.ui.finetune.asked import PANELS

BARELY = "The loss barely moves. Look at the pictures."


class Film:
    """What the page showed of a run. It is kept beside the run's state, for Continue.

    Attributes:
        frames: the player's frames. The first one is the base's.
        log: a loss for each step.
    """

    def __init__(self, file: Path, first: str) -> None:
        self._file = file
        self.frames: list[str] = [first]
        self.log: list[tuple[int, float]] = []
        for row in file.read_text("utf-8").splitlines() if file.exists() else ():
            frame, log = json.loads(row)
            self.frames.append(frame)
            self.log += [(step, loss) for step, loss in log]
        self._told = len(self.log)

    def add(self, frame: str) -> None:
        self.frames.append(frame)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([frame, self.log[self._told :]]) + "\n")
        self._told = len(self.log)


def header(
    shape: Sequence[int], total: int, grids: int, title: str, about: Mapping[str, Any]
) -> str:
    """The message that starts a run of `total` steps, shown in so many grids."""
    meta = {**about, "steps": total}
    return player.header(
        shape, total, title=title, meta=meta, panels=PANELS, unit="step", fps=pace(grids)
    )


def joined(opening: str, *frames: str) -> str:
    """Join messages into one. No two results are equal, because an equal one would not be shown."""
    message = json.loads(opening) | {"made": time.time_ns()}
    message["frames"] = [f for text in frames for f in json.loads(text)["frames"]]
    return json.dumps(message)


def loss_curve(log: Sequence[tuple[int, float]]) -> str:
    """The loss so far as pale dots, with a smoothed line, as HTML."""
    if len(log) < 2:
        return ""
    steps, losses = zip(*log, strict=True)
    plot = line_plot({"loss": (steps, losses)}, "step", "loss", smooth=True)
    return f"{plot}<p>{BARELY}</p>"
