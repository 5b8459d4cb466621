"""Compares all models in one table: size, work, training, distance and speed.

    python -m benchmarks.frontier
    python -m benchmarks.frontier --model google/ddpm-cifar10-32

GFLOP counts multiplications and additions of one forward pass of one picture, two for each use of a
weight. The distance is the Fréchet distance between n samples and the training pictures, in the
features of this repository's own classifier; it is not FID. Its floor stands beside it: the
distance of n draws from the data's own Gaussian, about what a perfect model would get. Models of
data without a classifier have neither. Milliseconds are for one call of the network. With guidance
w, a step calls it with every picture twice. Fine-tuned copies are left out, because they are for
one class only. Samples are kept, so that a stopped run can go on. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ddpm_demo.config import ModelConfig
from ddpm_demo.evaluation import frechet, references
from ddpm_demo.evaluation.classifier import judge_of
from ddpm_demo.evaluation.samples import Samples
from ddpm_demo.inference import timing as budget
from ddpm_demo.machine.devices import keep_memory, pick
from ddpm_demo.machine.files import cache_folder
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import available
from ddpm_demo.nn.unet import UNet

# Not stated in the repo; 800,000 steps of 128 pictures by Ho et al. 2020, appendix B.
SEEN = {"google/ddpm-cifar10-32": 800_000 * 128}


def gflop(config: ModelConfig) -> float:
    """GFLOP of one picture's forward pass. Nothing is computed, and no memory is used."""
    with torch.device("meta"):
        net, t = UNet(config), torch.zeros(1, dtype=torch.long)
        x = torch.zeros(1, config.channels, config.size, config.size)
    with FlopCounterMode(display=False) as counter:
        net(x, t)
    return counter.get_total_flops() / 1e9


def distance(checkpoint: Checkpoint, n: int, steps: int | None, cache: Path) -> tuple[str, str]:
    """The sampling settings, and the distance with its floor, or "–" without a classifier."""
    own = checkpoint.best
    run = dataclasses.replace(own, n=n, steps=steps or own.steps)
    drawn = f"{run.sampler}, {run.steps}" + (f", w = {run.guidance:g}" if run.guidance != 1 else "")
    try:
        judge = judge_of(checkpoint)
    except ValueError:
        return drawn, "–"
    frechet.require_enough(n, judge.dim)
    data = references.read(judge, "train")
    samples = Samples(checkpoint, run, cache=cache)
    total = len(samples.missing) * run.steps
    with tqdm(total=total, desc=checkpoint.name, unit="step", leave=False) as bar:
        for done in samples.draw():
            bar.update(done - bar.n)
    (found,) = samples.summaries([judge])
    return drawn, f"{frechet.distance(found, data):.2f} ({frechet.floor(data, n):.2f})"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", action="append", default=[], help="besides the shipped: repo, folder")
    p.add_argument("-n", type=int, default=500, help="samples of each")
    p.add_argument("--steps", type=int, help="default: each model's own")
    p.add_argument("--device", default="auto")
    p.add_argument("--cache", type=Path, help="folder for samples")
    o = p.parse_args()
    keep_memory()
    device = pick(o.device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"{o.n} samples each; {device}{threads}, fp32\n")
    print(
        "| model | pictures | M parameters | GFLOP | images seen | sampler, steps "
        "| distance (floor) | ms, batch 1 | ms, batch 16 |"
    )
    print("| :-- | :-- " + "| --: " * 3 + "| :-- " + "| --: " * 3 + "|")
    for name in (*available(), *o.model):
        checkpoint = load_checkpoint(name, device)
        if "base" in checkpoint.info:
            continue
        config, seen = checkpoint.model.config, checkpoint.info.get("images", SEEN.get(name))
        millions = checkpoint.parameters / 1e6
        drawn, fd = distance(
            checkpoint, o.n, o.steps, o.cache or cache_folder("samples", "--cache")
        )
        took = budget.measure(checkpoint, patience=math.inf)
        print(
            f"| {checkpoint.name} | {config.channels} × {config.size} × {config.size} "
            f"| {millions:.1f} | {gflop(config):.2f} | {f'{seen:,}' if seen else '–'} "
            f"| {drawn} | {fd} | {1e3 * took[1]:.1f} | {1e3 * took[16]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
