"""The command that fine-tunes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddpm_demo import config as c
from ddpm_demo.cli.common import device_argument
from ddpm_demo.cli.training import follow_until_stopped


def finetune_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", default="cifar10", help="the base: it is copied, never changed")
    p.add_argument("--class", dest="only", help="the class to go to (default: all of the data)")
    p.add_argument("--dataset", help="mnist, fashion_mnist, cifar10, folder:PATH; default: base's")
    p.add_argument("--data-dir", type=Path, help="where the data sets are or are downloaded to")
    p.add_argument("--steps", type=int, help="stop after this many steps (default: 10 epochs)")
    p.add_argument("--epochs", type=float, help="stop after this many passes over the data")
    p.add_argument("--batch-size", type=int, help="default: 512 on a GPU, 32 on a CPU")
    p.add_argument("--lr", type=float, default=2e-4)
    p.add_argument("--every", type=int, default=20, help="steps between two grids of samples")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True, help="folder for weights, log and the film")
    p.add_argument("--resume", action="store_true", help="go on from the state in --out")
    device_argument(p)
    p.set_defaults(run_command=_finetune)


def _finetune(o: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image

    from ddpm_demo import data as d
    from ddpm_demo import images
    from ddpm_demo.checkpoint import load_checkpoint
    from ddpm_demo.devices import keep_memory, pick
    from ddpm_demo.finetune import estimate, finetune, settings
    from ddpm_demo.train import preview

    keep_memory()
    device = pick(o.device)
    if o.steps is not None:
        c.number("steps", o.steps, 1, 10**7, whole=True)
    c.number("every", o.every, 1, 10**6, whole=True)
    c.require(
        o.resume or not (o.out / "state.safetensors").exists(),
        "--out",
        str(o.out),
        "a folder without a run in it, or --resume to go on with that run",
    )
    base = load_checkpoint(o.model)
    dataset = o.dataset or base.info.get("dataset", "cifar10")
    size, channels = base.model.config.size, base.model.config.channels
    data = d.load(dataset, o.data_dir or d.DATA_DIR, size=size, channels=channels)
    if o.only:
        data = data.only(o.only)
    batch = o.batch_size or min(len(data), 512 if device.type == "cuda" else 32)
    config = settings(
        base,
        data,
        dataset=dataset,
        batch_size=batch,
        lr=o.lr,
        images=o.steps and o.steps * batch,
        epochs=o.epochs or (None if o.steps else 10),
        preview_every=o.every * batch,
        seed=o.seed,
    )
    options = {"device": device, "bf16": o.bf16}
    seconds = estimate(base, data, config, **options)
    print(
        f"{o.model} goes to {o.only or dataset}: {len(data):,} pictures, batches of {batch}, "
        f"about {seconds / 60:.1f} minutes on this {device.type}",
        file=sys.stderr,
    )
    o.out.mkdir(parents=True, exist_ok=True)
    before = images.to_uint8(preview(base.model, base.diffusion))
    images.write(o.out / "preview-000000000.png", [images.grid(before, scale=4)])
    follow_until_stopped(
        lambda should_stop: finetune(
            base, data, config, o.out, resume=o.resume, should_stop=should_stop, **options
        ),
        o.out,
    )
    sheets = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(o.out.glob("preview-*.png"))]
    images.write(o.out / "morph.gif", sheets, metadata={"program": "ddpm_demo", "model": o.model})
    print(o.out)
