"""The commands models, ship and export."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from ddpm_demo.cli.options import model_name, path
from ddpm_demo.config import require


def models_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(run_command=_models)


def ship_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("run", type=path, nargs="?", metavar="RUN", help="the folder of a training run")
    p.add_argument(
        "folder", type=path, nargs="?", metavar="FOLDER", help="such as checkpoints/mnist"
    )
    p.add_argument("--all", action="store_true", help="make the cards of all shipped models again")
    p.add_argument("--commit", help="commit of the code that trained it")
    p.add_argument("--limits", help="a sentence on what the model can't do")
    p.add_argument("--sample", help='how to sample it, as JSON: {"start": 940}')
    p.add_argument(
        "--samplers",
        type=path,
        metavar="FILE",
        help="JSON: a list of rows with sampler, spacing, steps, calls and distance",
    )
    kind = p.add_mutually_exclusive_group()
    kind.add_argument(
        "--raw", action="store_true", help="the weights of the last step, without EMA"
    )
    kind.add_argument(
        "--mean", action="store_true", help="halfway from the model that the run started from"
    )
    kind.add_argument("--ema-rel", type=float, metavar="WIDTH", help="the average of this width")
    p.add_argument("--history", default="", help="a sentence on interruptions")
    p.set_defaults(run_command=_ship)


def export_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model",
        type=model_name,
        metavar="MODEL",
        help="a shipped model, a .safetensors file, a folder",
    )
    p.add_argument("folder", type=path, metavar="FOLDER", help="a new one, in diffusers' layout")
    p.set_defaults(run_command=_export)


def _models(o: argparse.Namespace) -> None:
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.models.zoo import available, how_to_get_models

    rows, names = [], available()
    if not names and not o.json:
        print(how_to_get_models())
    for name in names:
        m = load_checkpoint(name)
        size, millions = m.model.config.size, m.parameters / 1e6
        shape = f"{m.model.config.channels} x {size} x {size}"
        process, seen, n = m.diffusion, m.info.get("images") or 0, len(m.classes)
        rows.append(
            {"name": name, "shape": shape, "million_parameters": round(millions, 2)}
            | dataclasses.asdict(process)
            | {"images_seen": seen, "classes": m.classes}
        )
        if not o.json:
            classes = f", {n} classes" if n else ""
            print(
                f"{name:<16} {shape:<12} {millions:5.1f} M parameters, {process.schedule}, "
                f"T = {process.T}, {process.noise} noise, {seen:,} images seen{classes}"
            )
    if o.json:
        print(json.dumps(rows, indent=1))


def _ship(o: argparse.Namespace) -> None:
    from ddpm_demo.models.zoo import available, models_folder
    from ddpm_demo.publishing.cards import MEAN, Story
    from ddpm_demo.publishing.ship import make_card, ship
    from ddpm_demo.training.trainer import EMA, RAW, wide

    if o.all:
        require(o.run is None, "RUN", None, "left out with --all")
        for name in available():
            make_card(models_folder() / name)
            print(models_folder() / name)
        return
    for name, value in (("RUN", o.run), ("FOLDER", o.folder)):
        require(value is not None, name, None, "a folder: `ship RUN FOLDER`, or `ship --all`")
    for name in ("commit", "limits"):
        require(bool(getattr(o, name)), f"--{name}", getattr(o, name), "a text")
    sample = None if o.sample is None else _json(o.sample, "--sample")
    require(sample is None or isinstance(sample, dict), "--sample", o.sample, 'like {"start": 940}')
    samplers = None if o.samplers is None else _json(o.samplers.read_bytes(), "--samplers")
    story = Story(o.commit, o.limits, o.history)
    kind = RAW if o.raw else MEAN if o.mean else EMA if o.ema_rel is None else wide(o.ema_rel)
    ship(o.run, o.folder, story, sample=sample, samplers=samplers, kind=kind)
    print(o.folder)


def _json(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # bytes that are not text raise it, too
        raise ValueError(f"{name} is not JSON: {error}.") from None


def _export(o: argparse.Namespace) -> None:
    from ddpm_demo.models.diffusers_format import export_diffusers
    from ddpm_demo.models.load import load_checkpoint

    print(export_diffusers(load_checkpoint(o.model), o.folder))
