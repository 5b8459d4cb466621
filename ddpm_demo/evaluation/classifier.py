"""Small classifiers of MNIST, Fashion-MNIST and CIFAR-10, trained here to judge samples.

    python -m ddpm_demo.evaluation.classifier --dataset mnist --out mnist.safetensors

The network is a narrow ResNet-9 whose last layer but one is short, so that a few hundred pictures
are enough for the Fréchet distance in its features (see `metrics.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_demo import data as d
from ddpm_demo.config import SEED_MAX, from_dict, number, require, whole_numbers
from ddpm_demo.devices import bf16_pays, pick
from ddpm_demo.files import expand, write_atomically
from ddpm_demo.models.checkpoint import (
    CheckpointError,
    check_parameters,
    count_parameters,
    load_tensors,
    save_tensors,
)
from ddpm_demo.models.zoo import models_folder
from ddpm_demo.training.trainer import DivergedError, Shuffle, generator

VERSION = 1
SURE = 0.9  # a probability above this counts as sure
SHIFT = 2  # pixels that training pictures are moved by, at most, for every 16 of their size


@dataclass(frozen=True)
class ClassifierConfig:
    """The network. `widths` are the channels of the stem and after each of the three halvings."""

    classes: tuple[str, ...]
    size: int = 28
    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dim: int = 64  # of the features

    def __post_init__(self) -> None:
        require(len(self.classes) > 1, "classes", self.classes, "2 or more names")
        number("size", self.size, 8, 1024, whole=True)
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        ok = whole_numbers(self.widths, 1, 1024) and len(self.widths) == 4
        require(ok, "widths", self.widths, "four whole numbers from 1 to 1024")
        number("dim", self.dim, 1, 1024, whole=True)


@dataclass(frozen=True)
class Recipe:
    """How it is trained: SGD with momentum, whose rate rises for a fifth of the run, then falls."""

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


def _conv(c_in: int, c_out: int, kernel: int = 3, *, halve: bool = False) -> nn.Sequential:
    pool = [nn.MaxPool2d(2)] * halve  # before the norm, which then has a quarter to do
    convolution = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, *pool, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(c, c), _conv(c, c))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Classifier(nn.Module):
    """(B, C, H, W) pictures in [-1, 1] in, (B, classes) logits out.

    Attributes:
        info: dataset, recipe and test results, as far as they are known.
    """

    def __init__(self, config: ClassifierConfig, info: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.info = config, info or {}
        stem, a, b, c = config.widths
        self.body = nn.Sequential(
            _conv(config.channels, stem),
            _conv(stem, a, halve=True),
            _Residual(a),
            _conv(a, b, halve=True),
            _conv(b, c, halve=True),
            _Residual(c),
            _conv(c, config.dim, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(config.dim, len(config.classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, dim): what the last layer decides by."""
        return self.body(x.contiguous(memory_format=torch.channels_last))

    @property
    def name(self) -> str:
        """The data set and a fingerprint of the weights: another training has another name."""
        digest = hashlib.sha256()
        for v in weights(self).values():
            digest.update(v.half().cpu().numpy().tobytes())
        return f"{self.info.get('dataset', 'classifier')}-{digest.hexdigest()[:8]}"

    @property
    def dim(self) -> int:
        return self.config.dim

    @torch.no_grad()
    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) features and (B, classes) logits of (B, C, H, W) uint8 pictures.

        Raises:
            ValueError: pictures of a shape that it wasn't trained for.
        """
        shape = (self.config.channels, self.config.size, self.config.size)
        seen = tuple(pixels.shape[1:])
        require(seen == shape, "shape of the pictures", seen, f"that of the classifier, {shape}")
        features = self.features(pixels.to(self.head.weight.device).float() / 127.5 - 1)
        return features, self.head(features)


def weights(model: Classifier) -> dict[str, Tensor]:
    """Its parameters and running statistics, without PyTorch's counters of batches."""
    return {k: v for k, v in model.state_dict().items() if v.is_floating_point()}


# ---- on disk --------------------------------------------------------------------------------


def save_classifier(path: Path, model: Classifier) -> None:
    """One safetensors file in half precision, with configuration and results in its metadata."""
    about = {
        "version": VERSION,
        "classifier": dataclasses.asdict(model.config),
        "info": model.info,
    }
    save_tensors(path, {k: v.half() for k, v in weights(model).items()}, about)


def load_classifier(source: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """A shipped classifier by name, or one from a file, in eval mode.

    Raises:
        CheckpointError: it isn't there or can't be used; the message says why.
    """
    shipped = {p.stem: p for p in (models_folder() / "classifiers").glob("*.safetensors")}
    path = shipped.get(str(source), Path(source))
    if not path.is_file():
        raise CheckpointError(
            f"There is no classifier {str(source)!r}; allowed is a .safetensors file, "
            f"or a shipped one: {', '.join(sorted(shipped)) or 'none'}."
        )
    state, about = load_tensors(path)
    try:
        if about.get("version") != VERSION:
            raise ValueError(f"its version is {about.get('version')!r}; allowed is {VERSION}.")
        config = from_dict(ClassifierConfig, about["classifier"])
        info = dict(about.get("info") or {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path.name} is not a classifier of ours ({error!r}).") from None
    model = Classifier(config, info)
    check_parameters(path.name, weights(model), state)
    model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    return model.to(device).eval().requires_grad_(False)


# ---- training -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """A step of training: `loss` and `accuracy` are those of its batch, `rate` is images/s."""

    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float


def augment(x: Tensor, shift: int, flip: bool, g: torch.Generator) -> Tensor:
    """Each picture of (B, C, H, W) moved by up to `shift` pixels, and half of them mirrored."""
    n, _, h, w = x.shape
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=g)
    rows, columns = dy + torch.arange(h), dx + torch.arange(w)
    mirrored = torch.rand(n, 1, generator=g) < 0.5 * flip
    columns = torch.where(mirrored, columns.flip(1), columns)
    x = F.pad(x, [shift] * 4, mode="reflect").permute(0, 2, 3, 1)
    x = x[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return x.permute(0, 3, 1, 2)


def fit(model: Classifier, data: d.Images, recipe: Recipe) -> Iterator[Progress]:
    """Train `model` where it is, yielding after every step; it is in eval mode at the end.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    device = model.head.weight.device
    bf16 = bf16_pays(device)
    n, batch = len(data), min(recipe.batch_size, len(data))
    steps = max(1, recipe.epochs * n // batch)
    # Norms and biases are not decayed.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
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
        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(x).float()
        loss = F.cross_entropy(logits, y)
        if not bool(loss.isfinite()):
            raise DivergedError(f"The loss is {loss.item()} at step {step + 1}; try a smaller lr.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.eval()
        right = float((logits.argmax(1) == y).float().mean())
        seconds = max(time.monotonic() - started, 1e-9)
        yield Progress(step + 1, steps, loss.item(), right, (step + 1) * batch / seconds)


@dataclass(frozen=True)
class Report:
    """How it does on pictures that it hasn't seen.

    Attributes:
        accuracy: share that it gets right.
        sure: share with a probability above 0.9.
        sure_accuracy: share of these that it gets right.
        by_class: share of each class that it gets right.
    """

    n: int
    accuracy: float
    sure: float
    sure_accuracy: float
    by_class: dict[str, float] = field(default_factory=dict)


def assess(model: Classifier, data: d.Images, batch_size: int = 500) -> Report:
    """Compare what it says of labelled pictures with their labels."""
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


# ---- command line ---------------------------------------------------------------------------


def card(name: str, model: Classifier) -> str:
    """The card that lies beside the weights, in Markdown."""
    info, config, result = model.info, model.config, model.info["test"]
    rows = "\n".join(f"| {k} | {100 * v:.1f} % |" for k, v in result["by_class"].items())
    parameters = count_parameters(model)
    recipe = info["recipe"]
    words = ["python -m ddpm_demo.evaluation.classifier", f"--dataset {info['dataset']}"]
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a classifier, test it as saved, and write its card. Returns 0, 1 or 2, as the CLI."""
    from tqdm import tqdm

    default = Recipe()
    p = argparse.ArgumentParser(
        prog="python -m ddpm_demo.evaluation.classifier", description=main.__doc__
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
    o = p.parse_args(arguments)
    try:
        require(o.out.suffix == ".safetensors", "suffix of --out", o.out.suffix, ".safetensors")
        shape = dict(judges[o.dataset])
        usual_epochs = shape.pop("epochs")
        epochs = usual_epochs if o.epochs is None else o.epochs
        recipe = Recipe(epochs, o.batch_size, o.lr, o.weight_decay, o.seed)
        sets = [d.load(o.dataset, o.data_dir, train=train) for train in (True, False)]
        channels, size = sets[0].pixels.shape[1:3]
        config = ClassifierConfig(sets[0].classes, size, channels, **shape)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            model = Classifier(config).to(pick(o.device))
        o.out.parent.mkdir(parents=True, exist_ok=True)  # refused now, if at all
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
        model = load_classifier(o.out, pick(o.device))  # as people get it, rounding included
        model.info["test"] = dataclasses.asdict(assess(model, sets[1]))
        save_classifier(o.out, model)
        write_atomically(o.out.with_suffix(".md"), card(o.out.stem, model).encode())
        tqdm.write(f"{o.out}: {100 * model.info['test']['accuracy']:.2f} % of the test pictures")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"ddpm_demo: {error}\n")
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
