"""Writes the card of a shipped model, with the command that makes such a model."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig, require
from ddpm_demo.data import DATASETS
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.facts import ANY, EACH

BESIDE = "teacher.png"  # a picture for the card of a distilled model
MEAN = "mean"  # the kind of weights halfway between a run's first and its average
SHOWN = 100  # the number of samples on a card, with the seeds 0 to 99
NUMBERS = "## Evaluation"  # the last section, which `evaluate --card` writes
COLUMNS = ("sampler", "spacing", "steps", "calls", "distance")


@dataclass(frozen=True)
class Story:
    """Facts for a card that the files of a run don't have.

    Attributes:
        commit: the commit of the code that trained the model.
        limits: a sentence or two about what the model can't do.
        history: a sentence about interruptions, if there were any.
    """

    commit: str
    limits: str
    history: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(isinstance(value, str), field.name, value, "a text")


def check_samplers(rows: Any) -> list[dict[str, Any]]:
    """Check the table of samplers that a checkpoint keeps as `info["samplers"]`.

    Raises:
        ValueError: it isn't a list of rows, or a row lacks some of `COLUMNS`.
    """
    ok = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    require(ok, "samplers", rows, f"a list of rows with {', '.join(COLUMNS)}")
    for row in rows:
        numbers = [row.get(key) for key in COLUMNS[2:]]
        ok = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
        ok = ok and isinstance(row.get("sampler"), str) and isinstance(row.get("spacing"), str)
        require(ok, "row of samplers", row, f"one that has {', '.join(COLUMNS)}")
    return [dict(row) for row in rows]


def command(checkpoint: Checkpoint, name: str) -> str:
    """The command line that makes such a model."""
    train, base = checkpoint.info["train"], checkpoint.info.get("base")
    out = f"--out {shlex.quote(f'runs/{name}')}"
    if base:
        return f"{_finetune(checkpoint, name, base, train)} {out}"
    if "teacher" in checkpoint.info:
        return f"{_distill(checkpoint.info, train)} {out}"
    words = [f"python -m ddpm_demo train --dataset {shlex.quote(train['dataset'])}"]
    if init := checkpoint.info.get("init"):
        words.append(f"--init {shlex.quote(init)}")
        if checkpoint.model.config.num_classes:
            words.append("--class-conditional")
        return " ".join([*words, *_options(_process(checkpoint) | _run(train)), out])
    model = checkpoint.model.config
    row = DATASETS.get(train["dataset"])
    own = row.size if row else 32
    usual = ModelConfig(size=own, attention=(-(-model.size // 2 ** (len(model.multipliers) - 1)),))
    if not model.scale_shift:
        usual = ModelConfig.paper()
        words.append("--paper")
    keys = ("size", "width", "multipliers", "blocks", "attention", "time_dim", "norm", "dropout")
    changed = _changed(model, usual, keys) | _process(checkpoint) | _run(train)
    if model.channels == 1 and not (row and row.channels == 1):
        words.append("--grey")
    if model.num_classes:
        words.append("--class-conditional")
    return " ".join([*words, *_options(changed), out])


def _finetune(checkpoint: Checkpoint, name: str, base: str, train: Mapping[str, Any]) -> str:
    """The command for a fine-tuned model. In older ones, only the name BASE-CLASS has the class."""
    named = name.removeprefix(f"{base}-")
    only = train.get("only") or (named if named in checkpoint.classes else None)
    chosen = f" --class {shlex.quote(only)}" if only else ""
    data = train.get("dataset", "")
    other = f" --dataset {shlex.quote(data)}" if data not in DATASETS else ""
    steps = checkpoint.info["images"] // train["batch_size"]
    return (
        f"python -m ddpm_demo finetune --model {shlex.quote(base)}{chosen}{other} --steps {steps} "
        f"--batch-size {train['batch_size']} --lr {train['lr']:g}"
    )


def _distill(info: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    init = f"--init {shlex.quote(info['init'])} " if "init" in info else ""
    return (
        f"python -m ddpm_demo distill --model {shlex.quote(info['teacher']['name'])} {init}"
        f"--steps {','.join(info['few'])} --trajectories {info['trajectories']} "
        f"--batch-size {train['batch_size']} --lr {train['lr']:g} "
        f"--iterations {info['images'] // train['batch_size']}"
    )


def _changed(config: Any, usual: Any, keys: Sequence[str]) -> dict[str, Any]:
    pairs = {key: (getattr(config, key), getattr(usual, key)) for key in keys}
    return {key: value for key, (value, default) in pairs.items() if value != default}


def _process(checkpoint: Checkpoint) -> dict[str, Any]:
    keys = ("schedule", "beta_start", "beta_end", "T", "noise", "predict")
    return _changed(checkpoint.diffusion, DiffusionConfig(schedule="cosine"), keys)


def _run(train: Mapping[str, Any]) -> dict[str, Any]:
    return {
        field.name: train[field.name]
        for field in dataclasses.fields(TrainConfig)
        if train.get(field.name, field.default) not in (field.default, [])  # JSON's () is []
        and field.name not in ("dataset", "preview_every")
    }


def _options(values: Mapping[str, Any]) -> list[str]:
    """Write settings as options of the command line."""
    words = []
    for key, value in values.items():
        option = {"T": "timesteps"}.get(key, key).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
            continue
        if isinstance(value, (tuple, list)):
            value = ",".join(map(str, value)) or "none"
        text = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(f"--{option} {shlex.quote(text)}")
    return words


def card(
    name: str,
    checkpoint: Checkpoint,
    log: Sequence[Mapping[str, Any]],
    story: Story,
    beside: bool = False,
) -> str:
    """The model card, in Markdown with the Hub's front matter.

    Args:
        beside: True if there is a picture with the teacher's samples above the student's.
    """
    sections = [
        _opening(name, checkpoint, beside),
        _training(name, checkpoint, log, story),
        f"## Limits\n\n{story.limits}",
        _samplers(checkpoint.info.get("samplers") or []),
        _configuration(checkpoint),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _opening(name: str, checkpoint: Checkpoint, beside: bool) -> str:
    info, shown = checkpoint.info, checkpoint.best
    start = f" from t = {shown.start}" if shown.start else ""
    guided = f", guidance {shown.guidance:g}" if shown.guidance != 1 else ""
    labels = checkpoint.facts.class_words(shown.labels)
    drawn = {ANY: "", EACH: ", the classes in turn"}.get(labels, f", class {labels}")
    origin, film = "trained by this project from scratch", ""
    if base := info.get("base"):
        origin = f"fine-tuned by this project from [`{base}`](../{base}/README.md)"
        film = "\n![The same sixteen seeds, from the base to the end](morph.gif)\n"
    elif teacher := info.get("teacher"):
        teacher = teacher["name"]
        steps = " and ".join(f"in {n}" for n in info["few"])
        said = f"The first seeds: {teacher}, and under it this model {steps} steps"
        film = f"\n![{said}]({BESIDE})\n\n{said}.\n" if beside else ""
        origin = f"distilled by this project from [`{teacher}`](../{teacher}/README.md)"
        if init := info.get("init"):
            origin += f", starting from {_earlier(init, name)}"
    elif init := info.get("init"):
        origin = f"trained by this project from the weights of {_earlier(init, name)}"
    averaged = "The weights are the exponential moving average, in half precision."
    if info.get("raw"):
        averaged = "The weights are those of the last step, not averaged, in half precision."
    elif info.get("weights") == MEAN:
        averaged = "The weights are halfway from those it started from to the run's average,\n"
        averaged += "in half precision (`ship --mean`)."
    elif kind := info.get("weights"):
        averaged = f"The weights are the run's average `{kind}`, in half precision."
    return f"""---
license: mit
library_name: ddpm_demo
tags: [ddpm, diffusion, unconditional-image-generation]
---
# {name}

A DDPM (Ho, Jain & Abbeel 2020) of {checkpoint.parameters / 1e6:.1f} M parameters, {origin}.
{averaged}

![{SHOWN} samples](samples.png)
{film}
{SHOWN} samples, not chosen: seeds 0 to {SHOWN - 1}, {shown.steps} steps of
{shown.sampler}{start}{guided}{drawn}, made by

    python -m ddpm_demo sample --model {name} -n {SHOWN}"""


def _earlier(init: str, name: str) -> str:
    """The model that this one started from."""
    return "an earlier version" if init == name else f"[`{init}`](../{init}/README.md)"


def _training(
    name: str, checkpoint: Checkpoint, log: Sequence[Mapping[str, Any]], story: Story
) -> str:
    info, last, T = checkpoint.info, log[-1], checkpoint.diffusion.T
    dataset = info["dataset"]
    about = DATASETS[dataset].about if dataset in DATASETS else dataset
    held_out = f"{last['held_out']:.4f}" if last["held_out"] is not None else "not measured"
    hours = f"{info['seconds'] / 3600:.2f} hours"
    rows = "\n".join(
        f"| {T * i // 10 + 1} to {T * (i + 1) // 10} | {loss:.4f} |"
        for i, loss in enumerate(last["loss_by_t"])
        if loss is not None
    )
    return f"""## Training

- Data: {about}{_part(info)}
- Command: `{command(checkpoint, name)}`
- Code: commit {story.commit}
- Pictures seen: {info["images"]:,} in {hours}.{" " * bool(story.history)}{story.history}
- Loss on 1,024 held-out pictures, at fixed t and noise, with the shipped weights: {held_out}

![Loss against pictures seen](loss.svg)

| t | training loss at the end |
| --- | --- |
{rows}"""


def _part(info: Mapping[str, Any]) -> str:
    """A line about the training pictures, if the model saw only a part of them."""
    words = info.get("train", {}).get("pictures")
    if not words:
        return ""
    listed = f'ddpm_demo.data.load("{info["dataset"]}").part("{words}")'
    return (
        f"\n- Of these it saw the pictures {words} in the order that takes one of each class, "
        f"then the next of each. `{listed}` lists them."
    )


def _samplers(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of samplers. The app uses it to choose a sampler for a time limit."""
    if not rows:
        return ""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        words = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in cells]
        lines.append("| " + " | ".join(words) + " |")
    about = "A call is one evaluation of the network for one picture. Smaller distances are better."
    return "\n".join(["## Samplers", "", about, "", *lines])


def _configuration(checkpoint: Checkpoint) -> str:
    about = {
        "model": dataclasses.asdict(checkpoint.model.config),
        "diffusion": dataclasses.asdict(checkpoint.diffusion),
    }
    return f"## Configuration\n\n```json\n{json.dumps(about, indent=1)}\n```"
