"""The command train: train a model from scratch, or go on with one."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.options import (
    add_settings,
    dataset_name,
    device_argument,
    model_name,
    own_device,
    path,
    progress_bar,
    reading,
    say_skipped,
)
from ddpm_demo.cli.tracking import tracked, tracker
from ddpm_demo.config import require
from ddpm_demo.data import named, shown

if TYPE_CHECKING:
    from ddpm_demo.data import Images
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.training.train import Progress

NETWORK = ("width", "multipliers", "blocks", "attention", "time_dim", "norm", "dropout")
LENGTH = ("images", "epochs", "minutes")
OPTIMISATION = (
    *("loss", "weighting", "batch_size", "lr", "warmup", "decay"),
    *("weight_decay", "beta2", "grad_clip", "ema", "ema_rel"),
)
PROCESS = ("noise", "beta_start", "beta_end", "T", "predict")
FRESH = c.DiffusionConfig(schedule="cosine")  # the process without --init


def train_arguments(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("data")
    add_settings(
        g, c.TrainConfig, ["dataset"], changes={"dataset": {"type": dataset_name, "help": named()}}
    )
    g.add_argument("--data-dir", type=path, help="where the data sets are or are downloaded to")
    g.add_argument(
        "--size", type=int, help="pixels a side (default: the data's own; 32 for folders)"
    )
    g.add_argument("--grey", action="store_true", help="train on grey pictures")
    names = {"only": {"metavar": "CLASS"}, "pictures": {"metavar": "N"}}
    add_settings(g, c.TrainConfig, ["only", "pictures", "flip"], changes=names)
    g = p.add_argument_group("run")
    g.add_argument(
        "--out", type=path, required=True, help="folder for weights, state, log, previews"
    )
    g.add_argument("--resume", action="store_true", help="go on from the state in --out")
    g.add_argument(
        "--init",
        type=model_name,
        metavar="MODEL",
        help="start from this model's weights and network, and from its process by default",
    )
    metavar = {"preview_every": {"metavar": "IMAGES"}}
    add_settings(g, c.TrainConfig, [*LENGTH, "preview_every", "seed"], changes=metavar)
    g.add_argument("--track", metavar="PROJECT", help="log to Trackio too (pip install trackio)")
    device_argument(p)
    g.add_argument("--compile", action="store_true", help="torch.compile the steps, for a GPU")
    add_settings(p.add_argument_group("optimisation"), c.TrainConfig, OPTIMISATION)
    g = p.add_argument_group("process")
    own = "that of --init, or "  # these options are None by default, so that --init can decide
    add_settings(g, c.DiffusionConfig, PROCESS, unset=own)
    g.add_argument(
        "--schedule",
        choices=c.SCHEDULES,
        help=f"schedule of beta_t (default: {own}{FRESH.schedule})",
    )
    g = p.add_argument_group("network")
    g.add_argument(
        "--paper", action="store_true", help="Ho et al.'s 35.7 M network as the defaults"
    )
    add_settings(g, c.ModelConfig, NETWORK, unset="")
    g.add_argument("--class-conditional", action="store_true", help="learn the classes, and 'any'")
    add_settings(g, c.TrainConfig, ["label_dropout"])
    p.set_defaults(run_command=_train)


def configs(
    o: argparse.Namespace, base: c.DiffusionConfig = FRESH
) -> tuple[c.DiffusionConfig, c.TrainConfig]:
    """The process and the run that the arguments ask for. Options not given are as in `base`."""
    names = {f.name for f in dataclasses.fields(c.TrainConfig)}
    config = c.TrainConfig(**{k: v for k, v in vars(o).items() if k in names})
    config.require_length()
    asked = {name: getattr(o, name) for name in (*PROCESS, "schedule")}
    said = {name: value for name, value in asked.items() if value is not None}
    return dataclasses.replace(base, **said), config


def network(o: argparse.Namespace, size: int, channels: int, classes: int) -> c.ModelConfig:
    """The network that the arguments ask for, in the size of the data."""
    given = {k: getattr(o, k) for k in NETWORK if getattr(o, k) is not None}
    given |= {"size": size, "channels": channels, "num_classes": classes}
    if o.paper:
        return c.ModelConfig.paper(**given)
    levels = len(given.get("multipliers", c.ModelConfig.multipliers))
    lowest = -(-size // 2 ** (levels - 1))
    return c.ModelConfig(**({"attention": (lowest,)} | given))


def _train(o: argparse.Namespace) -> None:
    import torch

    from ddpm_demo.machine.devices import keep_memory, pick
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.training.run_folder import RunFolder
    from ddpm_demo.training.train import train, with_classes

    _, config = configs(o)
    RunFolder(o.out).check(o.resume, o.dataset)
    leader = os.environ.get("RANK", "0") == "0"
    trackio = tracker() if o.track and leader else None
    keep_memory()
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes
    init = load_checkpoint(o.init) if o.init else None
    if init:
        _fits(o, init)
    images, held_out = _pictures(o, init, leader)
    if init and o.class_conditional and not init.model.config.num_classes:
        init = with_classes(init, _classes(o, images))
    process, _ = configs(o, init.diffusion if init else FRESH)
    model: Checkpoint | c.ModelConfig = init or _fresh(o, images)
    device = own_device(pick(o.device))
    if leader:  # all arguments are checked by now
        shape = " x ".join(map(str, images.pixels.shape[1:]))
        print(f"{len(images):,} pictures of {shape}", file=sys.stderr)
    if leader and isinstance(model, c.ModelConfig):
        _say_if_not_exportable(model, process)
    run = partial(train, model, process, config, images, o.out, held_out=held_out, origin="init")
    options = {"resume": o.resume, "device": device}
    options |= {"bf16": o.bf16, "compiled": o.compile}

    def start(should_stop: Callable[[], bool]) -> Iterator[Progress]:
        progress = run(should_stop=should_stop, **options)
        if not trackio:
            return progress
        return tracked(progress, trackio, o.track, o.out.name, _tracked_settings(o))

    follow_until_stopped(start, o.out)


def _fits(o: argparse.Namespace, init: Checkpoint) -> None:
    """Raise `ValueError` if the arguments ask for another network than that of --init."""
    model = init.model.config
    said = [k for k in (*NETWORK, "paper") if getattr(o, k) not in (None, False)]
    require(not said, ", ".join(said), None, "left out with --init", "the network is the base's")
    require(o.size in (None, model.size), "--size with --init", o.size, f"{model.size}")
    fits = not o.grey or model.channels == 1
    require(fits, "--grey", None, "left out with --init", "the base is in colour")


def _pictures(
    o: argparse.Namespace, init: Checkpoint | None, leader: bool
) -> tuple[Images, Images]:
    """Load training and held-out pictures, and print what was left out."""
    from ddpm_demo import data as d

    size, channels = o.size, 1 if o.grey else None
    if init:
        size, channels = init.model.config.size, init.model.config.channels
    look: dict[str, Any] = {"size": size, "channels": channels}
    look["progress"] = partial(reading, quiet=not leader)
    both = [d.load(o.dataset, o.data_dir, train=split, **look) for split in (True, False)]
    if leader:
        say_skipped(both[0].skipped + both[1].skipped)
    images, held_out = (found.only(o.only) if o.only else found for found in both)
    return images.take(images.part(o.pictures)) if o.pictures else images, held_out


def _classes(o: argparse.Namespace, images: Images) -> int:
    classes = len(images.classes) if o.class_conditional else 0
    ok = not o.class_conditional or classes > 0
    require(ok, "--class-conditional", None, "left out", "the data has no classes")
    return classes


def _fresh(o: argparse.Namespace, images: Images) -> c.ModelConfig:
    return network(o, images.pixels.shape[2], images.pixels.shape[1], _classes(o, images))


def _say_if_not_exportable(model: c.ModelConfig, process: c.DiffusionConfig) -> None:
    """Warn before the run if diffusers can't run the model, and name the option that helps."""
    from ddpm_demo.models.diffusers_config import published

    try:
        published(model, process, c.SampleConfig())
    except ValueError as error:
        hint = " --norm group makes one that it can write." if model.norm == "layer" else ""
        print(f"`export` won't write this model for diffusers: {error}{hint}", file=sys.stderr)


def _tracked_settings(o: argparse.Namespace) -> dict[str, str]:
    """The arguments for a tracker, which may be public: names, but no paths."""
    settings = {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(o).items()}
    del settings["run_command"]
    return settings | {"dataset": shown(o.dataset)}


def follow_until_stopped(
    start: Callable[[Callable[[], bool]], Iterator[Progress]], out: Path
) -> bool:
    """Run a training to its end. Ctrl-C, SIGTERM and a closed terminal save it and end it.

    Args:
        start: makes the run. It gets a function that returns True once the run should stop.

    Returns:
        True if a signal ended the run.
    """
    stopped: list[int] = []
    run = start(lambda: bool(stopped))
    signals = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup and signal.getsignal(hangup) != signal.SIG_IGN:  # `nohup` ignores it
        signals.append(hangup)
    before = [signal.signal(n, lambda n, _frame: stopped.append(n)) for n in signals]
    try:
        began = _follow(run)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if not began:
        print(f"The run in {out} is already as long as was asked for.", file=sys.stderr)
    if stopped:
        print(f"Stopped and saved; go on with --resume --out {out}.", file=sys.stderr)
    return bool(stopped)


def _follow(run: Iterator[Progress]) -> bool:
    """Run a training, with a bar and a line for each report. Returns True if it made a step."""
    leader, began = os.environ.get("RANK", "0") == "0", False
    with progress_bar(total=100.0, bar_format="{l_bar}{bar}| {postfix}", disable=not leader) as bar:
        for p in run:
            began = True
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
    return began
