"""The command that trains."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_demo import config as c
from ddpm_demo.cli.common import device_argument, own_device, progress_bar, reading
from ddpm_demo.cli.options import add_settings, dataset_name, model_name, path
from ddpm_demo.cli.tracking import tracked, tracker

if TYPE_CHECKING:
    from ddpm_demo.training.train import Progress


NETWORK = ("width", "multipliers", "blocks", "attention", "norm", "dropout")
LENGTH = ("images", "epochs", "minutes")
OPTIMISATION = (
    *("loss", "weighting", "batch_size", "lr", "warmup", "decay"),
    *("weight_decay", "beta2", "grad_clip", "ema"),
)
PROCESS = ("noise", "schedule", "beta_start", "beta_end", "T", "predict")


def train_arguments(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("data")
    add_settings(g, c.TrainConfig, ["dataset"], changes={"dataset": {"type": dataset_name}})
    g.add_argument("--data-dir", type=path, help="where the data sets are or are downloaded to")
    g.add_argument(
        "--size", type=int, help="pixels a side (default: the data's own; 32 for folders)"
    )
    g.add_argument("--grey", action="store_true", help="train on grey pictures")
    add_settings(g, c.TrainConfig, ["only", "flip"], changes={"only": {"metavar": "CLASS"}})
    g = p.add_argument_group("run")
    g.add_argument(
        "--out", type=path, required=True, help="folder for weights, state, log, previews"
    )
    g.add_argument("--resume", action="store_true", help="go on from the state in --out")
    g.add_argument(
        "--init",
        type=model_name,
        metavar="MODEL",
        help="start from its weights, with its network and process",
    )
    metavar = {"preview_every": {"metavar": "IMAGES"}}
    add_settings(g, c.TrainConfig, [*LENGTH, "preview_every", "seed"], changes=metavar)
    g.add_argument("--track", metavar="PROJECT", help="log to Trackio too (pip install trackio)")
    device_argument(p)
    g.add_argument("--compile", action="store_true", help="torch.compile the steps, for a GPU")
    add_settings(p.add_argument_group("optimisation"), c.TrainConfig, OPTIMISATION)
    cosine = {"schedule": {"default": "cosine"}}
    add_settings(p.add_argument_group("process"), c.DiffusionConfig, PROCESS, changes=cosine)
    g = p.add_argument_group("network")
    g.add_argument(
        "--paper", action="store_true", help="Ho et al.'s 35.7 M network as the defaults"
    )
    add_settings(g, c.ModelConfig, NETWORK, unset="")
    g.add_argument("--class-conditional", action="store_true", help="learn the classes, and 'any'")
    add_settings(g, c.TrainConfig, ["label_dropout"])
    p.set_defaults(run_command=_train)


def configs(o: argparse.Namespace) -> tuple[c.DiffusionConfig, c.TrainConfig]:
    """The process and the run that the arguments ask for."""
    names = {f.name for f in dataclasses.fields(c.TrainConfig)}
    config = c.TrainConfig(**{k: v for k, v in vars(o).items() if k in names})
    config.require_length()
    return c.DiffusionConfig(**{name: getattr(o, name) for name in PROCESS}), config


def network(o: argparse.Namespace, size: int, channels: int, classes: int) -> c.ModelConfig:
    """The network that the arguments ask for, at the size of the data."""
    given = {k: getattr(o, k) for k in NETWORK if getattr(o, k) is not None}
    given |= {"size": size, "channels": channels, "num_classes": classes}
    if o.paper:
        return c.ModelConfig.paper(**given)
    levels = len(given.get("multipliers", c.ModelConfig.multipliers))
    lowest = -(-size // 2 ** (levels - 1))
    return c.ModelConfig(**({"attention": (lowest,)} | given))


def _train(o: argparse.Namespace) -> None:
    import torch

    from ddpm_demo import data as d
    from ddpm_demo.devices import keep_memory, pick
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.training.run_folder import RunFolder
    from ddpm_demo.training.train import train

    process, config = configs(o)
    RunFolder(o.out).check(o.resume)
    leader = os.environ.get("RANK", "0") == "0"
    trackio = tracker() if o.track and leader else None
    keep_memory()
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes
    folder = o.data_dir or d.DATA_DIR
    init = load_checkpoint(o.init) if o.init else None
    if init:
        process, o.size, o.grey = (
            init.diffusion,
            init.model.config.size,
            init.model.config.channels == 1,
        )
    sets = []
    for train_split in (True, False):
        images = d.load(
            o.dataset,
            folder,
            train=train_split,
            size=o.size,
            channels=1 if o.grey else None,
            progress=partial(reading, quiet=not leader),
        )
        sets.append(images.only(o.only) if o.only else images)
    n, channels, size = *sets[0].pixels.shape[:2], sets[0].pixels.shape[2]
    classes = len(sets[0].classes) if o.class_conditional else 0
    c.require(
        not o.class_conditional or classes > 0, "class-conditional", True, "data that has classes"
    )
    model = init or network(o, size, channels, classes)
    run = partial(
        train,
        model,
        process,
        config,
        sets[0],
        o.out,
        held_out=sets[1],
        resume=o.resume,
        device=own_device(pick(o.device)),
        bf16=o.bf16,
        compiled=o.compile,
    )
    if leader:
        for reason in dict.fromkeys(sets[0].skipped + sets[1].skipped):
            print(f"skipped {reason}", file=sys.stderr)
        print(f"{n:,} pictures of {channels} x {size} x {size}", file=sys.stderr)

    def start(should_stop: Callable[[], bool]) -> Iterator[Progress]:
        progress = run(should_stop=should_stop)
        if not trackio:
            return progress
        settings = {k: str(v) for k, v in vars(o).items() if k != "run_command"}
        return tracked(progress, trackio, o.track, o.out.name, settings)

    follow_until_stopped(start, o.out)


def follow_until_stopped(
    start: Callable[[Callable[[], bool]], Iterator[Progress]], out: Path
) -> bool:
    """Drain a run that `start` makes; Ctrl-C and SIGTERM save and end it.

    Args:
        start: gets the function that the run asks after every step whether to stop.

    Returns:
        Whether a signal ended it.
    """
    stopped: list[int] = []
    run = start(lambda: bool(stopped))
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda n, _frame: stopped.append(n)) for n in signals]
    try:
        _follow(run)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if stopped:
        print(f"Stopped and saved; go on with --resume --out {out}.", file=sys.stderr)
    return bool(stopped)


def _follow(run: Iterator[Progress]) -> None:
    """Drain a run: a bar, and a line a report."""
    leader = os.environ.get("RANK", "0") == "0"
    with progress_bar(total=100.0, bar_format="{l_bar}{bar}| {postfix}", disable=not leader) as bar:
        for p in run:
            if not leader:
                continue
            bar.n = round(100 * p.done, 2)
            hours, minutes = divmod(int(p.eta // 60), 60) if p.done else (0, 0)
            bar.set_postfix_str(
                f"{p.images:,} images, loss {p.loss:.4f}, {p.rate:.0f} images/s, "
                f"{hours} h {minutes:02d} min to go"
            )
            if not p.report:
                continue
            r = p.report
            held_out = "" if r.held_out is None else f", held-out loss {r.held_out:.4f}"
            bar.write(f"{p.images:>11,} images: loss {r.train_loss:.4f}{held_out}", file=sys.stderr)
