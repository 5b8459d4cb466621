"""The plan of a fine-tuning: the visitor's values, checked against model and data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from dataclasses import dataclass

import torch

from ddpm_demo.config import TrainConfig, number, one_of
from ddpm_demo.data import Images
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.machine.devices import here, pick
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError
from ddpm_demo.training import finetune as core
from ddpm_demo.ui.components.controls import Selected
from ddpm_demo.ui.finetune.asked import ALL, UNITS, Asked
from ddpm_demo.ui.finetune.eta import grids_left
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.work import data_of, loading

BATCH_MOST, STEPS_MOST = 2048, 100_000


@dataclass(frozen=True)
class Plan:
    """A fine-tuning whose values are all allowed.

    Attributes:
        name: the base's name in the list.
        source: the base's source, for `runtime.model`.
        dataset, only: the data, and the one class of it; None for all.
        steps: how many there are.
        device: by name, or "auto".
    """

    name: str
    source: str
    dataset: str
    only: str | None
    config: TrainConfig
    steps: int
    device: str

    def load(self) -> tuple[Checkpoint, Images]:
        """Load the base and the pictures in this process. Both are on the disk already."""
        base = runtime.model(self.source)
        found = data_of(self.dataset, base.model.config.size, base.model.config.channels)
        return base, found.only(self.only) if self.only else found

    def where(self) -> torch.device:
        return runtime.device() if self.device == "auto" else pick(self.device)

    @property
    def title(self) -> str:
        seen = f"{self.only} pictures" if self.only else self.dataset
        return f"{self.name}, fine-tuned on {seen}"

    @property
    def grids(self) -> int:
        """How many grids of samples are drawn on the way."""
        return grids_left(self.config, 0, self.steps * self.config.batch_size)

    def total(self, step: int, images: int) -> int:
        """The steps of the run, of which `step` saw so many pictures: with smaller batches there
        are more."""
        return math.ceil(self.config.batch_size * self.steps * step / images)


def classes_of(base: Checkpoint) -> list[str]:
    """The classes that a model can learn, as far as they are known without its data."""
    if base.classes:
        return base.classes
    with contextlib.suppress(CheckpointError):
        return list(load_classifier(base.info.get("dataset") or "cifar10").config.classes)
    return []


def check(asked: Asked) -> None:
    """Raise `ValueError` for values that are wrong whatever the data."""
    one_of("unit of the length", asked.unit, UNITS)
    if asked.unit == "steps":
        number("steps", asked.length, 1, STEPS_MOST, whole=True)
    else:
        number("epochs", asked.length, 0, 10_000, above=True)
    number("batch size", asked.batch, 1, BATCH_MOST, whole=True)
    number("grids", asked.grids, 1, 100, whole=True)
    one_of("device", asked.device, ("auto",) if settings.ZERO else ("auto", *here()))


def plan(local: bool, base: Selected, asked: Asked) -> Generator[str, None, Plan]:
    """What the controls, or a raw API call, ask for; lines to show come while the data is loaded.

    Args:
        local: folders of this disk are allowed.

    Raises:
        ValueError: a value is not allowed, or the data can't be had or doesn't fit.
    """
    check(asked)
    shape, dataset = base.checkpoint.model.config, str(asked.dataset or "").strip()
    dataset = dataset or str(base.checkpoint.info.get("dataset") or "cifar10")
    found = yield from loading(dataset, shape.size, shape.channels, local=local)
    only = None if asked.only == ALL else str(asked.only)
    found = found.only(only) if only else found
    whole = asked.unit == "steps"
    steps = asked.length if whole else math.ceil(asked.length * len(found) / asked.batch)
    number("steps", steps, 1, STEPS_MOST, whole=True)
    config = core.settings(
        base.checkpoint,
        found,
        images=steps * asked.batch,
        preview_every=max(1, math.ceil(steps / asked.grids)) * asked.batch,
        dataset=dataset,
        only=only,
        batch_size=asked.batch,
        lr=asked.lr,
    )
    return Plan(base.name, base.source, dataset, only, config, steps, asked.device)
