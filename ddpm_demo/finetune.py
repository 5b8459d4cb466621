"""Fine-tuning: a copy of a model goes on training on one class, or on other pictures.

It is `train` with the weights of another model to start from, so stopping and going on are exact
here too. This module adds what a visitor needs: checks, an estimate, and a smaller batch where a
GPU's memory does not suffice.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .checkpoint import Checkpoint
from .config import TrainConfig, number, require
from .data import Images
from .train import Progress, train

LR_MOST = 0.01
LABEL_DROPOUT = 0.5  # half of the steps move "any" class, half the class itself


def settings(base: Checkpoint, data: Images, **values: Any) -> TrainConfig:
    """The configuration of a fine-tuning, checked against model and data.

    Args:
        values: of `TrainConfig`.

    Raises:
        ValueError: a value that makes no sense, pictures of another shape than the model's, or
            fewer of them than a batch.
    """
    config = TrainConfig(**{"label_dropout": LABEL_DROPOUT, "warmup": 20, "ema": 0.99} | values)
    number("lr", config.lr, 0, LR_MOST, above=True)
    model = base.model.config
    wanted = (model.channels, model.size, model.size)
    require(
        tuple(data.pixels.shape[1:]) == wanted,
        "shape of the pictures",
        tuple(data.pixels.shape[1:]),
        f"that of the model, {wanted}",
    )
    if model.num_classes:
        require(
            list(data.classes) in (base.classes, []),
            "classes of the data",
            ", ".join(data.classes),
            f"those of the model, {', '.join(base.classes)}",
        )
    number("batch_size", config.batch_size, 1, len(data), whole=True)
    config.require_length()
    return config


def estimate(base: Checkpoint, data: Images, config: TrainConfig, **options: Any) -> float:
    """Seconds that a run will take, from timing two steps on a copy after one to warm up.

    Args:
        options: `device` and `bf16` of `train`.
    """
    images = config.images or int((config.epochs or 0) * len(data))
    if not images:
        return 60 * (config.minutes or 0)
    short = dataclasses.replace(
        config, images=4 * config.batch_size, epochs=None, minutes=None, preview_every=10**12
    )
    steps = train(base, base.diffusion, short, data, **options)
    next(steps)
    start = time.perf_counter()
    next(steps)
    next(steps)
    return (time.perf_counter() - start) / 2 * images / config.batch_size


def finetune(
    base: Checkpoint,
    data: Images,
    config: TrainConfig,
    out: Path | None = None,
    *,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Iterator[Progress]:
    """Train a copy of `base`, and yield `Progress` after every step; `base` stays as it is.

    Where a GPU has too little memory for a step, the run starts again with half the batch.

    Args:
        config: from `settings`.
        out: as in `train`; the result's `info` names its base.
        say: told a sentence when the batch is halved.
        options: `held_out`, `resume`, `device`, `bf16` and `should_stop` of `train`.

    Raises:
        ValueError: a batch of one does not fit into memory, or as `train` raises.
    """
    while True:
        try:
            yield from train(base, base.diffusion, config, data, out, **options)
            return
        except torch.OutOfMemoryError:
            half = config.batch_size // 2
        if not half:
            raise ValueError("A batch of one picture does not fit into the GPU's memory.")
        say(f"A batch of {2 * half} does not fit into the GPU's memory; going on with {half}.")
        config = dataclasses.replace(config, batch_size=half)
