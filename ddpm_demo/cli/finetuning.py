"""The command finetune: train a copy of a model on one class or other pictures."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.options import (
    add_settings,
    dataset_name,
    device_argument,
    film_frames,
    model_name,
    path,
    reading,
    say_skipped,
)
from ddpm_demo.cli.training import follow_until_stopped
from ddpm_demo.config import number
from ddpm_demo.data import named

if TYPE_CHECKING:
    from ddpm_demo.data.images import Images
    from ddpm_demo.models.checkpoint import Checkpoint


def finetune_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_name,
        default="cifar10",
        help="the base: it is copied, never changed",
    )
    p.add_argument("--class", dest="only", help="the class to go to (default: all of the data)")
    p.add_argument(
        "--dataset",
        type=dataset_name,
        help=f"{named()}; default: base's",
    )
    p.add_argument("--data-dir", type=path, help="where the data sets are or are downloaded to")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="stop after this many (default on a CPU: 40)")
    length.add_argument(
        "--epochs",
        type=float,
        help="stop after this many passes over the data (default on a GPU: 10)",
    )
    usual: dict[str, Any] = {
        "default": None,
        "help": "pictures a step (default: 512 on a GPU, 16 on a CPU)",
    }
    changes = {"batch_size": usual, "lr": {"default": 2e-4}}
    add_settings(p, c.TrainConfig, ["batch_size", "lr", "seed"], changes=changes)
    p.add_argument(
        "--every", type=int, help="steps between two grids of samples (default: an eighth of all)"
    )
    p.add_argument("--out", type=path, required=True, help="folder for weights, log and the film")
    p.add_argument("--resume", action="store_true", help="go on from the state in --out")
    p.add_argument("--push", metavar="REPO", help="then upload the result to the Hub, with a card")
    device_argument(p)
    p.set_defaults(run_command=_finetune)


def _length(o: argparse.Namespace, usual: Mapping[str, Any]) -> None:
    """Check the numbers of steps. If no length is given, use the usual one."""
    if o.steps is None and o.epochs is None:
        o.steps, o.epochs = usual.get("steps"), usual.get("epochs")
    if o.steps is not None:
        number("steps", o.steps, 1, 10**7, whole=True)
    if o.every is not None:
        number("every", o.every, 1, 10**6, whole=True)


def _data(o: argparse.Namespace, base: Checkpoint) -> Images:
    """Load the pictures to train on, in the base's size. By default, the base's own data."""
    from ddpm_demo import data as d

    o.dataset = o.dataset or base.info.get("dataset", "cifar10")
    size, channels = base.model.config.size, base.model.config.channels
    data = d.load(o.dataset, o.data_dir, size=size, channels=channels, progress=reading)
    return data.only(o.only) if o.only else data


def _settings(
    o: argparse.Namespace, base: Checkpoint, data: Images, usual: Mapping[str, Any]
) -> c.TrainConfig:
    from ddpm_demo.training import finetune as f

    batch = min(len(data), usual["batch_size"]) if o.batch_size is None else o.batch_size
    config = f.settings(
        base,
        data,
        dataset=o.dataset,
        only=o.only,
        batch_size=batch,
        lr=o.lr,
        images=None if o.steps is None else o.steps * max(1, batch),
        epochs=o.epochs,
        seed=o.seed,
    )
    every = o.every or math.ceil(f.pictures(config, data) / batch / 8)
    return dataclasses.replace(config, preview_every=every * batch)


def _finetune(o: argparse.Namespace) -> None:
    from ddpm_demo.machine.devices import keep_memory, pick
    from ddpm_demo.media.convert import to_uint8
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.publishing import push as publish
    from ddpm_demo.training import finetune as f
    from ddpm_demo.training.run_folder import SCALE, RunFolder

    keep_memory()
    device = pick(o.device)
    usual = f.CPU_USUAL if device.type == "cpu" else f.GPU_USUAL
    _length(o, usual)
    folder = RunFolder(o.out)
    folder.check(o.resume, o.dataset or "")
    if o.push is not None:
        publish.repo_name(o.push)  # raise errors now, before training
        publish.login()
    base = load_checkpoint(o.model, device)
    data = _data(o, base)
    config = _settings(o, base, data, usual)
    options = {"device": device, "bf16": o.bf16}
    minutes = f.estimate(base, data, config, **options) / 60
    say_skipped(data.skipped)
    print(
        f"{o.model} goes to {o.only or o.dataset}: {len(data):,} pictures, "
        f"batches of {config.batch_size}, about {minutes:.1f} minutes on this {device.type}",
        file=sys.stderr,
    )
    first = to_uint8(f.before(base, data, o.bf16))
    folder.add_preview(0, first)
    stopped = follow_until_stopped(
        lambda should_stop: f.finetune(
            base, data, config, o.out, resume=o.resume, should_stop=should_stop, **options
        ),
        o.out,
    )
    kept = film_frames(len(folder.previews()), len(first), base.model.config.size, SCALE)
    folder.write_film({"program": "ddpm_demo", "model": base.name}, kept)
    print(o.out)
    if o.push is not None and not stopped:
        _push(o)


def _push(o: argparse.Namespace) -> None:
    """Upload the result as one file."""
    from ddpm_demo.models.checkpoint import save_file
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.publishing import push as publish

    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "model.safetensors")
        save_file(file, load_checkpoint(o.out))
        print(f"Pushed to {publish.push(file, o.push)}")
