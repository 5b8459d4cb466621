"""Fine-tuning: a copy of a model trains further, on one class or on other pictures.

It is `train` that starts from another model's weights, so a run can be stopped and resumed exactly.
This module adds what a visitor needs: checks, a time estimate, and smaller batches if the GPU's
memory is too small.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import TrainConfig, number, require
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.machine.devices import bf16_pays
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors, save_tensors
from ddpm_demo.training.preview import preview
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.train import Progress, require_classes, train

LR_MOST = 0.01
LABEL_DROPOUT = 0.5  # half of the pictures train "any" class, half their own class
GPU_USUAL: dict[str, Any] = {"batch_size": 512, "epochs": 10}
CPU_USUAL: dict[str, Any] = {"batch_size": 16, "steps": 40}  # a minute or two


def settings(base: Checkpoint, data: Images, **values: Any) -> TrainConfig:
    """The configuration of a fine-tuning run, checked against the model and the data.

    Args:
        values: fields of `TrainConfig`.

    Raises:
        ValueError: a value is not allowed, the pictures don't have the model's shape, or there are
            fewer pictures than a batch needs.
    """
    config = TrainConfig(**{"label_dropout": LABEL_DROPOUT, "warmup": 20, "ema": 0.99} | values)
    number("lr", config.lr, 0, LR_MOST, above=True)
    model = base.model.config
    wanted = (model.channels, model.size, model.size)
    require(
        tuple(data.pixels.shape[1:]) == wanted,
        "shape of the pictures",
        tuple(data.pixels.shape[1:]),
        f"{wanted}, as for the model",
    )
    require_classes(data, model.num_classes, base.classes)
    require(
        config.batch_size <= len(data),
        "batch_size",
        config.batch_size,
        f"a whole number from 1 to {len(data):,} (the number of pictures)",
    )
    config.require_length()
    return config


def pictures(config: TrainConfig, data: Images) -> int:
    """How many pictures a run will see, or 0 if only a time limit ends it."""
    return config.images or math.ceil((config.epochs or 0) * len(data))


def estimate(base: Checkpoint, data: Images, config: TrainConfig, **options: Any) -> float:
    """Estimate the seconds that a run will take.

    It trains a copy for one step to warm up, and times two more.

    Args:
        options: `device` and `bf16`, as for `train`.

    Raises:
        ValueError: even one picture does not fit into memory.
    """
    images = pictures(config, data)
    if not images:
        return 60 * (config.minutes or 0)
    while True:
        short = dataclasses.replace(
            config, images=4 * config.batch_size, epochs=None, minutes=None, preview_every=10**12
        )
        try:
            steps = train(base, base.diffusion, short, data, **options)
            next(steps)
            start = time.perf_counter()
            next(steps)
            next(steps)
            return (time.perf_counter() - start) / 2 * images / config.batch_size
        except torch.OutOfMemoryError:
            pass  # the error holds the step's memory until this block ends; then try again
        config = _halved(config)


def before(
    base: Checkpoint,
    data: Images,
    bf16: bool | None = None,
    denoiser: Callable[..., Denoiser] = Denoiser,
) -> Tensor:
    """(16, C, H, W) samples of the base model, from the seeds of the previews on `data`."""
    if bf16 is None:
        bf16 = bf16_pays(next(base.model.parameters()).device)
    several = len(data.labels.unique()) > 1
    return preview(base.model, base.diffusion, by_class=several, bf16=bf16, denoiser=denoiser)


def _halved(config: TrainConfig) -> TrainConfig:
    if config.batch_size == 1:
        raise ValueError("A batch of one picture does not fit into the GPU's memory.")
    return dataclasses.replace(config, batch_size=config.batch_size // 2)


def finetune(
    base: Checkpoint,
    data: Images,
    config: TrainConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Iterator[Progress]:
    """Train a copy of `base`, and yield `Progress` after every step. `base` doesn't change.

    If a step doesn't fit into the GPU's memory, the run goes on with half the batch and twice the
    steps, from its last saved state if there is one. A resumed run keeps the smaller batch.

    Args:
        config: from `settings`.
        out: the folder of the run, as in `train`. The result's `info` names the base.
        resume: go on from the state in `out`; start anew if there is none.
        say: called with a sentence when the batch is halved.
        options: `held_out`, `device`, `bf16`, `should_stop` and `denoiser`, as for `train`.

    Raises:
        ValueError: even one picture does not fit into memory; or as for `train`.
    """
    folder = RunFolder(out) if out else None
    if resume and folder and folder.resumable():
        saved = load_tensors(folder.state)[1].get("configs", {}).get("train", {}).get("batch_size")
        while saved in [config.batch_size >> k for k in range(1, 17)]:
            config = _halved(config)
    while True:
        try:
            for progress in train(
                base, base.diffusion, config, data, out, resume=resume, **options
            ):
                resume = resume or bool(out and progress.report)
                yield progress
            return
        except torch.OutOfMemoryError:
            pass  # as in `estimate`
        full, config = config.batch_size, _halved(config)
        say(
            f"A batch of {full} does not fit into the GPU's memory; going on with "
            f"{config.batch_size}."
        )
        if resume and folder and folder.resumable():
            tensors, about = load_tensors(folder.state)
            about["configs"]["train"]["batch_size"] = config.batch_size
            save_tensors(folder.state, tensors, about)
