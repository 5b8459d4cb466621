"""The command that fine-tunes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddpm_demo import config as c
from ddpm_demo.cli.common import device_argument, film_frames, reading, run_folder
from ddpm_demo.cli.training import follow_until_stopped


def finetune_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", default="cifar10", help="the base: it is copied, never changed")
    p.add_argument("--class", dest="only", help="the class to go to (default: all of the data)")
    p.add_argument("--dataset", help="mnist, fashion_mnist, cifar10, folder:PATH; default: base's")
    p.add_argument("--data-dir", type=Path, help="where the data sets are or are downloaded to")
    p.add_argument("--steps", type=int, help="stop after this many steps (default: 10 epochs)")
    p.add_argument("--epochs", type=float, help="stop after this many passes over the data")
    p.add_argument("--batch-size", type=int, help="default: 512 on a GPU, 32 on a CPU")
    p.add_argument("--lr", type=float, default=2e-4, help="learning rate of AdamW")
    p.add_argument("--every", type=int, default=20, help="steps between two grids of samples")
    p.add_argument("--seed", type=int, default=0, help="of all that is random")
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
    run_folder(o.out, o.resume)
    base = load_checkpoint(o.model)
    dataset = o.dataset or base.info.get("dataset", "cifar10")
    size, channels = base.model.config.size, base.model.config.channels
    folder = o.data_dir or d.DATA_DIR
    data = d.load(dataset, folder, size=size, channels=channels, progress=reading)
    if o.only:
        data = data.only(o.only)
    usual = min(len(data), 512 if device.type == "cuda" else 32)
    batch = usual if o.batch_size is None else o.batch_size
    config = settings(
        base,
        data,
        dataset=dataset,
        batch_size=batch,
        lr=o.lr,
        images=o.steps and o.steps * max(1, batch),
        epochs=10 if o.epochs is None and not o.steps else o.epochs,
        preview_every=o.every * max(1, batch),
        seed=o.seed,
    )
    options = {"device": device, "bf16": o.bf16}
    seconds = estimate(base, data, config, **options)
    for reason in data.skipped:
        print(f"skipped {reason}", file=sys.stderr)
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
    grids = sorted(o.out.glob("preview-*.png"))
    kept = film_frames(len(grids), len(before), size, 4)
    sheets = [np.asarray(Image.open(grids[i]).convert("RGB")) for i in sorted(kept)]
    images.write(o.out / "morph.gif", sheets, metadata={"program": "ddpm_demo", "model": o.model})
    print(o.out)
