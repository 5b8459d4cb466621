"""The command distill: teach a copy of a model to sample in few steps."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from ddpm_demo.cli.options import (
    add_settings,
    count,
    device_argument,
    model_name,
    numbers,
    path,
    progress_bar,
)
from ddpm_demo.cli.training import follow_until_stopped
from ddpm_demo.config import TrainConfig, number


def distill_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_name,
        default="cifar10",
        help="the teacher: it is copied, never changed",
    )
    p.add_argument(
        "--init",
        type=model_name,
        metavar="MODEL",
        help="start from this student of the same teacher; default: start from the teacher",
    )
    p.add_argument(
        "--steps",
        type=numbers,
        default=(4, 2, 1),
        help="numbers of steps for the student, separated by commas; the first is its usual one",
    )
    p.add_argument(
        "--trajectories", type=count, default=3200, help="runs of the teacher, made once and kept"
    )
    length = p.add_mutually_exclusive_group()
    minutes = {"help": "stop after this many minutes of training (default: 25)"}
    add_settings(length, TrainConfig, ["minutes"], changes={"minutes": minutes})
    length.add_argument("--iterations", type=count, help="batches to train on")
    changes: dict[str, dict[str, Any]] = {
        "batch_size": {"default": 32, "help": "trajectories in a batch"},
        "lr": {"default": 1e-4},
    }
    add_settings(p, TrainConfig, ["batch_size", "lr", "seed"], changes=changes)
    p.add_argument(
        "--preview-every", type=count, metavar="N", help="batches between two previews; default: 50"
    )
    p.add_argument("--out", type=path, required=True, help="folder for all that is made")
    p.add_argument("--resume", action="store_true", help="go on from the state in --out")
    device_argument(p)
    p.set_defaults(run_command=_distill)


def _distill(o: argparse.Namespace) -> None:
    from ddpm_demo.machine.devices import bf16_pays, keep_memory, pick
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.training import distill as d
    from ddpm_demo.training import trajectories as tr
    from ddpm_demo.training.run_folder import RunFolder

    keep_memory()
    device = pick(o.device)
    bf16 = bf16_pays(device) if o.bf16 is None else o.bf16
    RunFolder(o.out).check(o.resume)
    teacher = load_checkpoint(o.model, device)
    plans = d.plan(teacher, o.steps)
    init = load_checkpoint(o.init, device) if o.init else None
    if init:
        d.require_student(init, teacher, plans)
    for name in ("iterations", "preview_every"):
        if (value := getattr(o, name)) is not None:
            number(name, value, 1, 10**7, whole=True)
    config = d.settings(
        teacher,
        o.trajectories,
        batch_size=o.batch_size,
        lr=o.lr,
        images=o.iterations and o.iterations * o.batch_size,
        minutes=o.minutes if o.minutes is not None or o.iterations else 25.0,
        preview_every=(o.preview_every or 50) * o.batch_size,
        seed=o.seed,
    )
    said = "; ".join(f"{n} at t = {', '.join(map(str, times))}" for n, times in plans.items())
    print(f"{o.model} learns to sample in few steps: {said}", file=sys.stderr)
    folder, at = o.out / "trajectories", d.stops(plans)
    with progress_bar(total=o.trajectories, unit="trajectory") as bar:
        for made in tr.make(teacher, at, o.trajectories, folder, bf16=bf16):
            bar.update(made - bar.n)
    x = tr.load(teacher, at, o.trajectories, folder)
    run = partial(d.distill, teacher, plans, config, x, o.out, init, resume=o.resume, bf16=bf16)
    follow_until_stopped(lambda should_stop: run(should_stop=should_stop), o.out)
    print(o.out)
