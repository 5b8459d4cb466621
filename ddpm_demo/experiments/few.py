"""Which models copy, those trained on few pictures or those trained on many?

They are the shipped `mnist-small-…` models. All have the same network and were trained equally
long: on 10, 100, 1,000 or 60,000 digits, and on two halves that share no digit. Kadkhodaie et al.
(2024) found that networks of two such halves draw nearly the same picture from the same noise, if
they saw enough pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.experiments.nearest import nearest
from ddpm_demo.experiments.tools import Report, Sheet, Table, Tools, Words, interval, spoken, unseen
from ddpm_demo.media import convert
from ddpm_demo.models.zoo import available, facts

PREFIX = "mnist-small-"
HALVES = (f"{PREFIX}half-a", f"{PREFIX}half-b")
N, SHOWN, TEST = 24, 8, 200
HEAD = ("trained on", "n", "its pictures", "test pictures", "")
WHAT = (
    "One small network, trained equally long on 10 to 60,000 digits, with the same noise. Below "
    "each picture is the nearest of those that its network was trained on."
)
SAID = (
    "A network that saw few pictures gives them back: its pictures are much nearer to what it saw "
    "than test pictures are. With many pictures it can't learn them by heart: its pictures are as "
    "far away as test pictures are, or farther.",
    "The two halves share no digit. Where their networks agree on a picture, it can't be a copy.",
)


def names() -> list[str]:
    """The names of the shipped small models. Those trained on few pictures come first."""
    found = [name for name in available() if name.startswith(PREFIX)]
    return sorted(found, key=lambda name: (name in HALVES, len(name), name))


def run(seed: int, tools: Tools) -> Iterator[Report]:
    """Draw with each model, and find the nearest of its training pictures."""
    made: dict[str, Tensor] = {}
    cells: list[tuple[np.ndarray | None, ...]] = []
    notes: list[tuple[str, ...]] = []
    rows: list[str] = []
    table: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {}
    for name in names():
        made[name] = _drawn(name, seed, tools)
        own, test = _seen(name, tools)
        near, of_test = nearest(made[name], own, 1), nearest(test, own, 1)
        words = facts(name).info.get("train", {}).get("pictures") or f"{len(own):,}"
        cells += [_row(made[name]), _row(own[near.places[:, 0]])]
        notes += [("",) * SHOWN, tuple(f"{d:.2f}" for d in near.distance[:SHOWN, 0].tolist())]
        rows += [name.removeprefix(PREFIX), "nearest"]
        gaps = [interval(values.distance[:, 0].tolist()) for values in (near, of_test)]
        same = abs(gaps[0][0] - gaps[1][0]) < gaps[0][1] + gaps[1][1]
        said = f"{unseen(N)} and {TEST}" if same else ""
        table.append((words, str(N), *(spoken(*gap) for gap in gaps), said))
        numbers[name] = {"n": N, "nearest": gaps[0], "test": gaps[1]}
        sheet = Sheet(WHAT, tuple(cells), tuple(rows), (), tuple(notes), 1)
        yield Report(len(made) / len(names()), name, (sheet, _table(table)), numbers)
    if set(HALVES) <= set(made):
        numbers |= (halves := _halves(*(made[name] for name in HALVES)))
        words = f"The halves' pictures from the same noise differ by {spoken(*halves['same'])}, "
        words += f"those from different noise by {spoken(*halves['other'])} (n = {N})."
        yield Report(1, "", (sheet, _table(table), Words((*SAID, words))), numbers)
    elif made:
        yield Report(1, "", (sheet, _table(table), Words(SAID[:1])), numbers)


def _drawn(name: str, seed: int, tools: Tools) -> Tensor:
    """Draw (N, 1, H, W) uint8 pictures with a model."""
    checkpoint = tools.load(name)
    *_, last = tools.generate(checkpoint, checkpoint.best.but(n=N, seed=seed))
    return torch.from_numpy(convert.to_uint8(last.x_t).transpose(0, 3, 1, 2).copy())


def _seen(name: str, tools: Tools) -> tuple[Tensor, Tensor]:
    """A model's training pictures, and test pictures."""
    about = facts(name)
    size, words = about.config.size, about.info.get("train", {}).get("pictures")
    train, test = (tools.data("mnist", size, 1, train=split) for split in (True, False))
    own = train.take(train.part(words)) if words else train
    return own.pixels, test.pixels[:TEST]


def _row(pixels: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(p[None] for p in pixels[:SHOWN].permute(0, 2, 3, 1).numpy())


def _table(rows: list[tuple[str, ...]]) -> Table:
    note = (
        "Mean distance to the nearest picture that the network was trained on: root mean square of "
        "pixels from −1 to 1, with its 95 % interval."
    )
    return Table("Who copies?", HEAD, tuple(rows), note)


def _halves(a: Tensor, b: Tensor) -> dict[str, Any]:
    """How far apart the pictures of two models are, from the same noise and from other noise."""

    def gaps(x: Tensor, y: Tensor) -> tuple[float, float]:
        apart = (x.double() - y.double()).square().flatten(1).mean(1).sqrt() / 127.5
        return interval(apart.tolist())

    return {"same": gaps(a, b), "other": gaps(a, b.roll(1, 0))}
