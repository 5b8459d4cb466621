"""Train a small classifier that judges samples.

python -m ddpm_demo.cli.fit_classifier --dataset mnist --out mnist.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_demo import data as d
from ddpm_demo.config import SEED_MAX, number, require
from ddpm_demo.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ddpm_demo.evaluation.features import SURE
from ddpm_demo.machine.devices import bf16_pays, pick
from ddpm_demo.machine.files import expand, write_atomically
from ddpm_demo.models.checkpoint import count_parameters
from ddpm_demo.training.trainer import DivergedError, Shuffle, generator

SHIFT = 2  # the most pixels to move training pictures by, for every 16 pixels of their size


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum. The rate rises for a fifth of the run, and then falls."""

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        number("epochs", self.epochs, 1, 10_000, whole=True)
        number("batch_size", self.batch_size, 2, 65_536, whole=True)
        number("lr", self.lr, 0, 10, above=True)
        number("weight_decay", self.weight_decay, 0, 1)
        number("seed", self.seed, 0, SEED_MAX, whole=True)


@dataclass(frozen=True)
class Progress:
    """A step of training. `loss` and `accuracy` are for its batch; `rate` is in images/s."""

    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float


def augment(x: Tensor, shift: int, flip: bool, g: torch.Generator) -> Tensor:
    """Move each picture of (B, C, H, W) by up to `shift` pixels. If `flip`, mirror half of them."""
    n, _, h, w = x.shape
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=g)
    rows, columns = dy + torch.arange(h), dx + torch.arange(w)
    mirrored = torch.rand(n, 1, generator=g) < 0.5 * flip
    columns = torch.where(mirrored, columns.flip(1), columns)
    x = F.pad(x, [shift] * 4, mode="reflect").permute(0, 2, 3, 1)
    x = x[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x.permute(0, 3, 1, 2)


def fit(model: Classifier, data: d.Images, recipe: Recipe) -> Iterator[Progress]:
    """Train `model` on its device, and yield after every step. It ends in eval mode.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    device = model.head.weight.device
    n, batch = len(data), min(recipe.batch_size, len(data))
    steps = max(1, recipe.epochs * n // batch)
    optimizer = _optimizer(model, recipe)
    shuffle = Shuffle(n, recipe.seed)
    shift = SHIFT * model.config.size // 16
    started = time.monotonic()
    for step in range(steps):
        g = generator(torch.device("cpu"), recipe.seed, 4, step)
        index = shuffle.take(step * batch, batch)
        x = augment(data.batch(index), shift, data.flip, g).to(device)
        y = data.labels[index].to(device)
        rate = min(1.0, (step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate
        loss, right = _step(model, optimizer, x, y)
        if not math.isfinite(loss):
            raise DivergedError(f"The loss is {loss} at step {step + 1}; try a smaller lr.")
        seconds = max(time.monotonic() - started, 1e-9)
        yield Progress(step + 1, steps, loss, right, (step + 1) * batch / seconds)


def _optimizer(model: Classifier, recipe: Recipe) -> torch.optim.SGD:
    """Make the optimizer. Weight decay leaves out norms and biases."""
    groups = [
        {
            "params": [p for p in model.parameters() if p.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def _step(
    model: Classifier, optimizer: torch.optim.SGD, x: Tensor, y: Tensor
) -> tuple[float, float]:
    """Train on a batch, and return its loss and accuracy. If the loss diverged, don't train."""
    model.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16_pays(x.device)):
        logits = model(x).float()
    loss = F.cross_entropy(logits, y)
    if bool(loss.isfinite()):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    model.eval()
    return loss.item(), float((logits.argmax(1) == y).float().mean())


@dataclass(frozen=True)
class Report:
    """How well a classifier does on pictures that it hasn't seen.

    Attributes:
        n: the number of pictures.
        accuracy: the share that it gets right.
        sure: the share with a probability above 0.9.
        sure_accuracy: the share of the sure ones that it gets right.
        by_class: the share of each class that it gets right.
    """

    n: int
    accuracy: float
    sure: float
    sure_accuracy: float
    by_class: dict[str, float] = field(default_factory=dict)


def assess(model: Classifier, data: d.Images, batch_size: int = 500) -> Report:
    """Compare a classifier's predictions with the labels of pictures."""
    parts = [model.extract(part)[1].cpu() for part in data.pixels.split(batch_size)]
    best, said = torch.cat(parts).softmax(1).max(1)
    right, sure = said == data.labels, best > SURE
    by_class = {
        name: float(right[data.labels == i].float().mean())
        for i, name in enumerate(model.config.classes)
    }
    return Report(
        len(data),
        float(right.float().mean()),
        float(sure.float().mean()),
        float(right[sure].float().mean()) if sure.any() else 0.0,
        by_class,
    )


def card(name: str, model: Classifier) -> str:
    """The card of a classifier, in Markdown."""
    info, config, result = model.info, model.config, model.info["test"]
    rows = "\n".join(f"| {k} | {100 * v:.1f} % |" for k, v in result["by_class"].items())
    parameters = count_parameters(model)
    recipe = info["recipe"]
    words = ["python -m ddpm_demo.cli.fit_classifier", f"--dataset {info['dataset']}"]
    words += [f"--{k.replace('_', '-')} {v:g}" for k, v in recipe.items()]
    command = " ".join([*words, f"--out {name}.safetensors"])
    return f"""# {name}

A classifier of {config.channels} x {config.size} x {config.size} pictures in {len(config.classes)}
classes, trained by this project from scratch to judge samples. It has {parameters / 1e6:.2f} M
parameters, in half precision, and decides by {config.dim} features.

- Data: {d.DATASETS[info["dataset"]].about}
- Command: `{command}`
- Training: {info["images"]:,} pictures seen in {info["seconds"] / 60:.1f} minutes
- **Test accuracy: {100 * result["accuracy"]:.2f} %** of {result["n"]:,} pictures
- Sure (a probability above {SURE}) of {100 * result["sure"]:.1f} % of them, and right about
  {100 * result["sure_accuracy"]:.2f} % of those

| class | test accuracy |
| --- | --- |
{rows}

Distances in its features are no FID, and compare only with others in the features of these weights.
"""


def _parser() -> argparse.ArgumentParser:
    default = Recipe()
    p = argparse.ArgumentParser(
        prog="python -m ddpm_demo.cli.fit_classifier", description=main.__doc__
    )
    judges = {name: row.judge for name, row in d.DATASETS.items() if row.judge}
    p.add_argument("--dataset", choices=[*judges], default="mnist")
    p.add_argument("--data-dir", type=expand)
    p.add_argument("--out", type=expand, required=True, help="*.safetensors; a card goes beside it")
    usual = ", ".join(f"{judge['epochs']} for {name}" for name, judge in judges.items())
    p.add_argument("--epochs", type=int, help=f"default: {usual}")
    p.add_argument("--batch-size", type=int, default=default.batch_size)
    p.add_argument("--lr", type=float, default=default.lr)
    p.add_argument("--weight-decay", type=float, default=default.weight_decay)
    p.add_argument("--seed", type=int, default=default.seed)
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a classifier, test it as saved, and write its card. Returns 0, 1 or 2, as the CLI."""
    o = _parser().parse_args(arguments)
    try:
        _train(o)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"ddpm_demo: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0


def _train(o: argparse.Namespace) -> None:
    from tqdm import tqdm

    require(o.out.suffix == ".safetensors", "suffix of --out", o.out.suffix, ".safetensors")
    shape = dict(d.DATASETS[o.dataset].judge)
    usual = shape.pop("epochs")
    epochs = usual if o.epochs is None else o.epochs
    recipe = Recipe(epochs, o.batch_size, o.lr, o.weight_decay, o.seed)
    sets = [d.load(o.dataset, o.data_dir, train=train) for train in (True, False)]
    channels, size = sets[0].pixels.shape[1:3]
    config = ClassifierConfig(sets[0].classes, size, channels, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = Classifier(config).to(pick(o.device))
    o.out.parent.mkdir(parents=True, exist_ok=True)  # if this fails, it fails before training
    started = time.monotonic()
    with tqdm(unit="step", dynamic_ncols=True) as bar:
        for at in fit(model, sets[0], recipe):
            bar.total = at.steps
            bar.set_postfix_str(
                f"loss {at.loss:.3f}, {100 * at.accuracy:.0f} % right, {at.rate:.0f} images/s",
                refresh=False,
            )
            bar.update()
    model.info = {
        "dataset": o.dataset,
        "recipe": dataclasses.asdict(recipe),
        "images": at.steps * min(recipe.batch_size, len(sets[0])),
        "seconds": round(time.monotonic() - started),
    }
    save_classifier(o.out, model)
    model = load_classifier(o.out, pick(o.device))  # test the saved weights, with their rounding
    model.info["test"] = dataclasses.asdict(assess(model, sets[1]))
    save_classifier(o.out, model)
    write_atomically(o.out.with_suffix(".md"), card(o.out.stem, model).encode())
    tqdm.write(f"{o.out}: {100 * model.info['test']['accuracy']:.2f} % of the test pictures")


if __name__ == "__main__":
    sys.exit(main())
