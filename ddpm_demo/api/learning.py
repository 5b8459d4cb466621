"""Training and fine-tuning from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpm_demo import data as d
from ddpm_demo.api.model import Model, load
from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig
from ddpm_demo.machine.devices import pick
from ddpm_demo.machine.files import expand
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.training.finetune import finetune as _finetune
from ddpm_demo.training.finetune import settings as _finetune_settings
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.train import Progress
from ddpm_demo.training.train import train as _train


def train(
    dataset: str | d.Images,
    out: str | Path | None = None,
    *,
    model: ModelConfig | Model | None = None,
    process: DiffusionConfig | None = None,
    device: str = "auto",
    resume: bool = False,
    **settings: Any,
) -> Iterator[Progress]:
    """Train a model, and yield after every step.

    Args:
        dataset: mnist, fashion_mnist, cifar10, folder:PATH, or pictures in memory.
        out: the folder for weights, state and log; None writes nothing.
        model: the network's configuration, or a model to start from. By default, the lean network
            for the data.
        process: schedule, noise and target. By default, the process of `model` if it is a model,
            else the cosine schedule.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resume: go on from the state in `out`.
        settings: fields of `TrainConfig`. Give at least one of images, epochs and minutes; it ends
            the run.

    Raises:
        ValueError: a value is not allowed, or the data can't be loaded.
    """
    name = dataset if isinstance(dataset, str) else "memory"
    config = TrainConfig(dataset=name, **settings)
    config.require_length()
    where = _folder(out, name, resume)
    shape = model.checkpoint.model.config if isinstance(model, Model) else model
    look: dict[str, Any] = {"size": shape.size, "channels": shape.channels} if shape else {}
    pictures = d.load(dataset, **look) if isinstance(dataset, str) else dataset
    if config.only:
        pictures = pictures.only(config.only)
    if config.pictures:
        pictures = pictures.take(pictures.part(config.pictures))
    start: ModelConfig | Checkpoint
    if isinstance(model, Model):
        start, process = model.checkpoint, process or model.checkpoint.diffusion
    else:
        size, channels = pictures.pixels.shape[-1], pictures.pixels.shape[1]
        lean = ModelConfig(size=size, channels=channels, attention=(-(-size // 4),))
        start = model or lean
    process = process or DiffusionConfig(schedule="cosine")
    options: dict[str, Any] = {"resume": resume, "device": pick(device)}
    return _train(start, process, config, pictures, where, **options)


def finetune(
    base: str | Model,
    only: str | None = None,
    out: str | Path | None = None,
    *,
    dataset: str | d.Images | None = None,
    resume: bool = False,
    **settings: Any,
) -> Iterator[Progress]:
    """Fine-tune a copy of a model on one class or on other pictures. Yields after every step.

    Args:
        base: the model, or its name.
        only: the class to train on; None trains on all of the data.
        out, resume: as in `train`.
        dataset: as in `train`. By default, the data that the base was trained on.
        settings: fields of `TrainConfig`. Give at least one of images, epochs and minutes; it ends
            the run.

    Raises:
        ValueError: the pictures don't fit the model; or as in `train`.
    """
    where = _folder(out, dataset if isinstance(dataset, str) else "", resume)
    checkpoint = (load(base) if isinstance(base, str) else base).checkpoint
    model = checkpoint.model.config
    name = dataset if isinstance(dataset, str) else checkpoint.info.get("dataset", "")
    pictures = dataset if isinstance(dataset, d.Images) else None
    if pictures is None:
        pictures = d.load(name, size=model.size, channels=model.channels)
    if only:
        pictures = pictures.only(only)
    config = _finetune_settings(checkpoint, pictures, dataset=name, only=only, **settings)
    device = next(checkpoint.model.parameters()).device
    return _finetune(checkpoint, pictures, config, where, resume=resume, device=device)


def _folder(out: str | Path | None, dataset: str, resume: bool) -> Path | None:
    """Check the folder of a run, and return its path."""
    if out is None:
        return None
    folder = RunFolder(expand(out))
    folder.check(resume, dataset)
    return folder.path
