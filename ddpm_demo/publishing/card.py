"""Ship a training run: weights in half precision with a model card, samples and loss curve."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig
from ddpm_demo.files import write_atomically
from ddpm_demo.inference.generate import defaults, generate, metadata
from ddpm_demo.inference.labels import ANY, EACH, class_words
from ddpm_demo.media import images
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint

DATA = {
    "mnist": "MNIST (LeCun, Bottou, Bengio & Haffner 1998), commonly taken to be CC BY-SA 3.0: "
    "60,000 training pictures of handwritten digits.",
    "fashion_mnist": "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), MIT licence: 60,000 training "
    "pictures of clothes.",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), no explicit licence, its authors ask to be cited: "
    "50,000 training pictures of ten classes.",
}
SHOWN = 100  # samples on a card


def ship(
    run: Path,
    folder: Path,
    *,
    commit: str,
    limits: str,
    history: str = "",
    sample: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Make `folder` a shipped model out of the finished or paused run in `run`.

    Args:
        commit: of the code that trained it.
        limits: a sentence or two on what the model can't do.
        history: a sentence on interruptions, if there were any.
        sample: how the model is best sampled, in the names of `SampleConfig`; None: as its run
            says.

    Returns:
        The checkpoint as shipped, read back from its file.
    """
    name = folder.name
    checkpoint = load_checkpoint(run)
    checkpoint.info["sample"] = dict(sample or checkpoint.info.get("sample") or {})
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    save_checkpoint(folder, checkpoint, torch.float16)
    shipped = load_checkpoint(folder)  # what people get, rounding included
    write_atomically(folder / "loss.svg", loss_curve(log).encode())
    write_atomically(folder / "log.jsonl", (run / "log.jsonl").read_bytes())
    if (film := run / "morph.gif").exists():
        write_atomically(folder / film.name, film.read_bytes())

    parts, shown = [], dataclasses.replace(defaults(shipped), n=SHOWN)
    for start in range(0, SHOWN, 10):
        *_, last = generate(shipped, dataclasses.replace(shown, n=10, seed=start))
        parts.append(images.to_uint8(last.x_t))
    sheet = images.grid(np.concatenate(parts), 10, scale=2)
    images.write(folder / "samples.png", [sheet], metadata=metadata(name, shown))
    write_atomically(
        folder / "README.md", card(name, shipped, log, commit, limits, history).encode()
    )
    return shipped


def command(checkpoint: Checkpoint, name: str) -> str:
    """The command line that trains such a model; a fine-tuned one is called BASE-CLASS."""
    model, process = checkpoint.model.config, checkpoint.diffusion
    run = checkpoint.info["train"]
    if base := checkpoint.info.get("base"):
        steps, only = checkpoint.info["images"] // run["batch_size"], name.removeprefix(f"{base}-")
        return (
            f"python -m ddpm_demo finetune --model {base} --class {only} --steps {steps} "
            f"--batch-size {run['batch_size']} --lr {run['lr']:g} --out runs/{name}"
        )
    if teacher := checkpoint.info.get("teacher"):
        return (
            f"python -m ddpm_demo distill --model {teacher['name']} "
            f"--steps {','.join(checkpoint.info['few'])} "
            f"--trajectories {checkpoint.info['trajectories']} "
            f"--batch-size {run['batch_size']} --lr {run['lr']:g} "
            f"--iterations {checkpoint.info['images'] // run['batch_size']} --out runs/{name}"
        )
    words = [f"python -m ddpm_demo train --dataset {shlex.quote(run['dataset'])}"]
    own = 28 if "mnist" in run["dataset"] else 32
    usual = ModelConfig(size=own, attention=(-(-model.size // 2 ** (len(model.multipliers) - 1)),))
    if not model.scale_shift:
        usual = ModelConfig.paper()
        words.append("--paper")
    asked: list[tuple[Any, Any, tuple[str, ...]]] = [
        (model, usual, ("size", "width", "multipliers", "blocks", "attention", "norm", "dropout")),
        (
            process,
            DiffusionConfig(schedule="cosine"),
            ("schedule", "beta_start", "beta_end", "T", "noise", "predict"),
        ),
    ]
    changed = {
        key: getattr(config, key)
        for config, default, keys in asked
        for key in keys
        if getattr(config, key) != getattr(default, key)
    }
    changed |= {
        field.name: run[field.name]
        for field in dataclasses.fields(TrainConfig)
        if run.get(field.name, field.default) != field.default
        and field.name not in ("dataset", "preview_every")
    }
    if model.channels == 1 and "mnist" not in run["dataset"]:
        words.append("--grey")
    if model.num_classes:
        words.append("--class-conditional")
    for key, value in changed.items():
        option = {"T": "timesteps"}.get(key, key).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, (tuple, list)):
            words.append(f"--{option} {','.join(map(str, value)) or 'none'}")
        else:
            words.append(
                f"--{option} {value:g}" if isinstance(value, float) else f"--{option} {value}"
            )
    return " ".join([*words, f"--out runs/{name}"])


def card(
    name: str,
    checkpoint: Checkpoint,
    log: Sequence[dict[str, Any]],
    commit: str,
    limits: str,
    history: str,
) -> str:
    """The model card, in Markdown with the Hub's front matter."""
    model, info, last = checkpoint.model.config, checkpoint.info, log[-1]
    dataset = info["dataset"]
    T = checkpoint.diffusion.T
    parameters = checkpoint.parameters
    held_out = f"{last['held_out']:.4f}" if last["held_out"] is not None else "not measured"
    rows = "\n".join(
        f"| {T * i // 10 + 1} to {T * (i + 1) // 10} | {loss:.4f} |"
        for i, loss in enumerate(last["loss_by_t"])
        if loss is not None
    )
    configuration = {
        "model": dataclasses.asdict(model),
        "diffusion": dataclasses.asdict(checkpoint.diffusion),
    }
    shown = defaults(checkpoint)
    start = f" from t = {shown.start}" if shown.start else ""
    guided = f", guidance {shown.guidance:g}" if shown.guidance != 1 else ""
    sample = f"python -m ddpm_demo sample --model {name}"
    labels = class_words(shown.labels, checkpoint.classes)
    drawn = {ANY: "", EACH: ", the classes in turn"}.get(labels, f", class {labels}")
    origin = "trained by this project from\nscratch"
    film = ""
    if base := info.get("base"):
        origin = f"fine-tuned by this project from\n[`{base}`](../{base}/README.md)"
        film = "\n![The same sixteen seeds, from the base to the end](morph.gif)\n"
    if teacher := info.get("teacher"):
        base = teacher["name"]
        origin = f"distilled by this project from\n[`{base}`](../{base}/README.md)"
    return f"""---
license: mit
library_name: ddpm_demo
tags: [ddpm, diffusion, unconditional-image-generation]
---
# {name}

A DDPM (Ho, Jain & Abbeel 2020) of {parameters / 1e6:.1f} M parameters, {origin}.
The weights are the exponential moving average, in half precision.

![100 samples](samples.png)
{film}
{SHOWN} samples, not chosen: seeds 0 to {SHOWN - 1}, {shown.steps} steps of
{shown.sampler}{start}{guided}{drawn}, made by

    {sample} -n {SHOWN}

## Training

- Data: {DATA.get(dataset, dataset)}
- Command: `{command(checkpoint, name)}`
- Code: commit {commit}
- Pictures seen: {info["images"]:,} in {info["seconds"] / 3600:.2f} hours. {history}
- Loss on 1,024 held-out pictures, at fixed t and noise, with the shipped weights: {held_out}

![Loss against pictures seen](loss.svg)

| t | training loss at the end |
| --- | --- |
{rows}

## Limits

{limits}

## Configuration

```json
{json.dumps(configuration, indent=1)}
```
"""


def loss_curve(log: Sequence[dict[str, Any]]) -> str:
    """An SVG plot of training and held-out loss (log scale) against pictures seen."""
    width, height, left, bottom = 640, 320, 64, 40
    lines = {"train": "#94a3b8", "held_out": "#0d9488"}
    values = [r[k] for r in log for k in lines if r[k]]
    low, high = np.log(min(values)) - 0.02, np.log(max(values)) + 0.02
    most = max(r["images"] for r in log)

    def at(seen: float, loss: float) -> str:
        x = left + (width - left - 16) * seen / most
        y = 16 + (height - bottom - 16) * (high - np.log(loss)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for loss in np.exp(np.linspace(low, high, 5)):
        y = at(0, loss).split(",")[1]
        parts.append(f'<path d="M{left} {y}H{width - 16}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{left - 8}" y="{y}" dy="4" text-anchor="end">{loss:.3f}</text>')
    for share in (0, 0.5, 1):
        x = at(most * share, values[0]).split(",")[0]
        text = f"{most * share / 1000:,.0f} k"
        parts.append(f'<text x="{x}" y="{height - 20}" text-anchor="middle">{text}</text>')
    middle = (left + width) // 2
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">pictures seen</text>')
    for i, (key, colour) in enumerate(lines.items()):
        points = " ".join(at(r["images"], r[key]) for r in log if r[key])
        style = f'fill="none" stroke="{colour}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {style}/>')
        name = {"train": "training", "held_out": "held out (EMA)"}[key]
        parts.append(f'<text x="{width - 130}" y="{36 + 18 * i}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])
