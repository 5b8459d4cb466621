"""The command that draws pictures from a model."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.catalog import SAMPLERS
from ddpm_demo.cli.common import (
    FILM_FRAMES,
    class_argument,
    device_argument,
    film_frames,
    progress_bar,
    sheet,
    suffix,
)
from ddpm_demo.cli.options import add_settings, model_name, path
from ddpm_demo.config.setting import number, require

if TYPE_CHECKING:
    import numpy as np

    from ddpm_demo.diffusion.walk import Step
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.facts import Facts

PAGE = 64  # pictures sampled at a time
OWN = ("sampler", "steps", "spacing", "start", "variance", "eta", "clip", "guidance", "timesteps")


def sample_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_name,
        default="mnist",
        help="a shipped model, a .safetensors file, a folder, or a repo of the Hub, of at most "
        "2,000 MB or as many as DDPM_DEMO_HUB_MB in the environment says",
    )
    own = "what the model's checkpoint says, else "
    add_settings(p, c.SampleConfig, ["n", "seed"])
    add_settings(p, c.SampleConfig, OWN, unset=own)
    class_argument(p)
    p.add_argument(
        "--out",
        type=path,
        default=Path("samples.png"),
        help="*.png: the grid, or with 'strip' in the name ten snapshots of the way; "
        f"*.gif, *.mp4: the film, of {FILM_FRAMES} frames or fewer; "
        "*.html: the run as a page that opens from disk; *.npz: uint8 (N, H, W, C) as arr_0",
    )
    p.add_argument("--scale", type=int, default=4, help="pixels of the file per pixel")
    device_argument(p)
    p.set_defaults(run_command=_sample)


def asked(o: argparse.Namespace, model: Checkpoint | Facts) -> c.SampleConfig:
    """The run that the options ask for; what they leave open is as the model says."""
    from ddpm_demo.inference.labels import parse_classes
    from ddpm_demo.inference.spec import defaults

    chosen = {k: getattr(o, k) for k in ("n", "seed", *OWN) if getattr(o, k) is not None}
    if "timesteps" in chosen:
        chosen["timesteps"] = chosen["timesteps"] or None  # for "none"
    if o.classes is not None:
        chosen["labels"] = parse_classes(o.classes, model.classes)
    return defaults(model).but(**chosen)


def _sample(o: argparse.Namespace) -> None:
    from ddpm_demo.devices import keep_memory, pick
    from ddpm_demo.inference.generate import generate
    from ddpm_demo.inference.spec import RunSpec
    from ddpm_demo.media import convert
    from ddpm_demo.models.load import load_checkpoint

    kind = suffix(o.out, ".png", ".gif", ".mp4", ".html", ".npz")
    number("scale", o.scale, 1, 64, whole=True)
    film = kind in (".gif", ".mp4") or (kind == ".png" and "strip" in o.out.stem)
    require(not film or o.n <= 256, "n", o.n, "at most 256 for a film or strip")
    keep_memory()
    checkpoint = load_checkpoint(o.model, pick(o.device))
    run = asked(o, checkpoint)
    number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k's is seed + k
    if kind == ".html":
        _write_page(o, checkpoint, run)
        return
    page = o.n if film else PAGE
    generate(checkpoint, dataclasses.replace(run, n=1))  # refuses before the bar appears
    kept = _kept(o, run, checkpoint.model.config.size) if kind != ".npz" else set()
    frames, parts = {}, []
    with progress_bar(total=-(-o.n // page) * run.steps, unit="step") as bar:
        for start in range(0, o.n, page):
            part = dataclasses.replace(run, n=min(page, o.n - start), seed=o.seed + start)
            for step in generate(checkpoint, part, bf16=bool(o.bf16)):
                bar.update(min(step.index, 1))
                if film and step.index in kept:
                    pictures = convert.to_uint8(step.x_t)
                    frames[f"t = {step.t}"] = convert.grid(pictures, scale=o.scale)
            parts.append(convert.to_uint8(step.x_t))
    _write(o, RunSpec(checkpoint.name, run).to_metadata(checkpoint.classes), frames, parts)
    print(o.out)


def _counted(steps: Iterator[Step], bar: Any) -> Iterator[Step]:
    for step in steps:
        bar.update(min(step.index, 1))
        yield step


def _write_page(o: argparse.Namespace, checkpoint: Checkpoint, run: c.SampleConfig) -> None:
    """Write the run as a web page that opens from disk."""
    from ddpm_demo.files import write_atomically
    from ddpm_demo.inference.generate import generate
    from ddpm_demo.inference.spec import RunSpec
    from ddpm_demo.inference.updates import code, updates
    from ddpm_demo.media.web_page import run_page

    require(o.n <= 64, "n", o.n, "at most 64 for a web page")
    about = RunSpec(checkpoint.name, run).to_metadata(checkpoint.classes)
    label = SAMPLERS[run.sampler].label
    title = f"{checkpoint.name} · {label} · {run.steps} steps · seed {run.seed}"
    look = {"title": title, "meta": about, "updates": updates(checkpoint, run)}
    with progress_bar(total=run.steps, unit="step") as bar:
        steps = generate(checkpoint, run, bf16=bool(o.bf16))
        page = run_page(_counted(steps, bar), look, code(run.sampler))
    write_atomically(o.out, page.encode())
    print(o.out)


def _kept(o: argparse.Namespace, run: c.SampleConfig, size: int) -> set[int]:
    """The steps whose pictures are shown: ten for a strip, most for a film.

    Raises:
        ValueError: the file would be too large.
    """
    import numpy as np

    if o.out.suffix.lower() != ".png":
        return film_frames(run.steps + 1, o.n, size, o.scale)
    most = min(10, run.steps + 1) if "strip" in o.out.stem else 1
    sheet(o.n * most, size, o.scale)
    return {int(index) for index in np.linspace(0, run.steps, most).round()}


def _write(
    o: argparse.Namespace,
    about: dict[str, str],
    frames: dict[str, np.ndarray],
    parts: list[np.ndarray],
) -> None:
    """Write the file.

    Args:
        about: what the file says of its run.
        frames: of a film or strip, by their labels.
        parts: the pictures, uint8 (N, H, W, C) each.
    """
    import numpy as np

    from ddpm_demo.files import write_atomically
    from ddpm_demo.media import convert, encode

    pictures, kind = np.concatenate(parts), o.out.suffix.lower()
    if kind == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, pictures, metadata=json.dumps(about))
        write_atomically(o.out, buffer.getvalue())
    elif kind != ".png":
        encode.write(o.out, list(frames.values()), metadata=about)
    elif frames:
        encode.write(o.out, [convert.strip(list(frames.values()), list(frames))], metadata=about)
    else:
        encode.write(o.out, [convert.grid(pictures, scale=o.scale)], metadata=about)
