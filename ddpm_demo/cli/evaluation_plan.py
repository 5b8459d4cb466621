"""Checks what the command evaluate is asked for, before anything is drawn."""

from __future__ import annotations

import argparse
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.options import own_device, say_skipped, suffix
from ddpm_demo.config import number, require
from ddpm_demo.evaluation.metrics import Asked
from ddpm_demo.machine import files

if TYPE_CHECKING:
    from ddpm_demo.data import Images
    from ddpm_demo.evaluation.features import Extractor
    from ddpm_demo.evaluation.references import Source
    from ddpm_demo.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Plan:
    """A checked evaluation. Nothing is drawn yet.

    Attributes:
        o: the arguments of the command.
        checkpoint: the model.
        asked: the metrics.
        extractors: the extractors, by the names of their metrics.
        grid: the settings to sample with.
        source: the pictures that samples are compared with.
        tested: (N, C, H, W) test pictures for the bound; None if it isn't asked for.
        cache: the folder for samples.
        card: the model's card, if the results go there.
        rank, world: the rank of this process, and the number of processes. Only rank 0 reports.
    """

    o: argparse.Namespace
    checkpoint: Checkpoint
    asked: list[Asked]
    extractors: dict[str, Extractor]
    grid: list[c.SampleConfig]
    source: Source
    tested: Any
    cache: Path
    card: Path | None
    rank: int
    world: int

    def keeps(self, extractor: Extractor) -> bool:
        """True if a metric needs this extractor's features of each picture."""
        mine = [a.metric for a in self.asked if self.extractors.get(a.name) is extractor]
        return any(metric.keep for metric in mine)


def make_plan(o: argparse.Namespace) -> Plan:
    """Check all arguments, and raise errors before any work begins."""
    from ddpm_demo.evaluation.metrics import make_extractors, parse_metrics
    from ddpm_demo.machine.devices import pick
    from ddpm_demo.models.load import load_checkpoint

    if o.out:
        suffix(o.out, ".json")
    number("n", o.n, 1, 100_000, whole=True)
    number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k has seed + k
    device = own_device(pick(o.device))
    checkpoint = load_checkpoint(o.model, device)
    asked = parse_metrics(o.metrics.split(","), checkpoint)
    grid = _grid(o, checkpoint)
    source = _source(o, checkpoint, grid[0])
    extractors = make_extractors(asked, device)
    _try(o, checkpoint, asked, extractors)
    rank, world = (int(os.environ.get(k, v)) for k, v in (("RANK", 0), ("WORLD_SIZE", 1)))
    card = _card(o)
    tested = None
    if not rank and any(a.metric.extractor is None for a in asked):
        tested = _tested(o, checkpoint, source)
    cache = _cache(o) if extractors else Path()
    return Plan(o, checkpoint, asked, extractors, grid, source, tested, cache, card, rank, world)


def _grid(o: argparse.Namespace, checkpoint: Checkpoint) -> list[c.SampleConfig]:
    """A setting for each sampler and number of steps."""
    own = checkpoint.best.but(n=o.n, seed=o.seed)
    if o.classes is not None:
        own = own.but(labels=checkpoint.facts.parse_classes(o.classes))
    if o.guidance is not None:
        checkpoint.facts.require_guided(o.guidance)
        own = own.but(guidance=o.guidance)
    for steps in o.steps or ():
        number("steps", steps, 1, own.start or checkpoint.diffusion.T, whole=True)
    return [
        own.but(sampler=sampler, steps=steps)
        for sampler in (o.samplers.split(",") if o.samplers else [own.sampler])
        for steps in (o.steps or [own.steps])
    ]


def _source(o: argparse.Namespace, checkpoint: Checkpoint, drawn: c.SampleConfig) -> Source:
    """The pictures to compare with. If one class is drawn, they are of this class."""
    from ddpm_demo.evaluation.references import Source

    dataset = o.dataset or checkpoint.info.get("dataset") or ""
    require(bool(dataset), "--dataset", None, "the name of the data to compare with")
    labels, classes = drawn.labels or (), checkpoint.classes
    only = o.data_class or (classes[labels[0]] if classes and len(labels) == 1 else None)
    load = functools.cache(lambda: _load(o, checkpoint, dataset, only, o.split == "train"))
    return Source(dataset, o.split, only, load)


def _load(
    o: argparse.Namespace, checkpoint: Checkpoint, dataset: str, only: str | None, train: bool
) -> Images:
    from ddpm_demo import data

    config = checkpoint.model.config
    shape: dict[str, Any] = {"size": config.size, "channels": config.channels}
    found = data.load(dataset, o.data_dir, train=train, **shape)
    if os.environ.get("RANK", "0") == "0":
        say_skipped(found.skipped)
    return found.only(only) if only else found


def _tested(o: argparse.Namespace, checkpoint: Checkpoint, source: Source) -> Any:
    """(N, C, H, W) test pictures for the bound, in [-1, 1]."""
    import torch

    require(o.bpd_images is None or o.bpd_images > 0, "--bpd-images", o.bpd_images, "1 or more")
    if o.bpd_steps is not None:
        number("--bpd-steps", o.bpd_steps, 2, checkpoint.diffusion.T, whole=True)
    data = _load(o, checkpoint, source.dataset, source.only, False)
    return data.batch(torch.arange(min(len(data), o.bpd_images or len(data))))


def _try(
    o: argparse.Namespace,
    checkpoint: Checkpoint,
    asked: list[Asked],
    extractors: dict[str, Extractor],
) -> None:
    """Refuse too few samples, and pictures whose shape an extractor can't use."""
    import torch

    config = checkpoint.model.config
    blank = torch.zeros(1, config.channels, config.size, config.size, dtype=torch.uint8)
    for a in asked:
        if a.name in extractors:
            extractors[a.name].extract(blank)
            a.metric.check_number(o.n, extractors[a.name])


def _cache(o: argparse.Namespace) -> Path:
    """The folder for samples. Raises an error if it can't be written."""
    cache: Path = o.cache or files.cache_folder("samples", "--cache")
    files.require_writable(cache, "--cache")
    return cache


def _card(o: argparse.Namespace) -> Path | None:
    from ddpm_demo.models.zoo import models_folder

    if not o.card:
        return None
    card = models_folder() / o.model / "README.md"
    require(card.is_file(), "--card with the model", o.model, "a shipped model that has one")
    files.require_writable(card.parent)
    return card
