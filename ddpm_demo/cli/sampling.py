"""The command sample: draw pictures from a model."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.options import (
    FILM_FRAMES,
    add_settings,
    class_argument,
    device_argument,
    film_frames,
    model_name,
    path,
    progress_bar,
    sheet,
    suffix,
)
from ddpm_demo.config import SAMPLERS, counted, number, require

if TYPE_CHECKING:
    import numpy as np

    from ddpm_demo.diffusion import Step
    from ddpm_demo.inference.spec import RunSpec
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.facts import Facts

    Player = Callable[[c.SampleConfig], Iterator[Step]]

PAGE = 64  # how many pictures are sampled at a time
OWN = ("sampler", "steps", "spacing", "start", "variance", "eta", "clip", "guidance", "timesteps")


def sample_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_name,
        default="mnist",
        help="a shipped model, a .safetensors file, a folder, or a repo of the Hub of at most "
        "2,000 MB (DDPM_DEMO_HUB_MB in the environment changes this limit)",
    )
    own = "what the model's checkpoint says, else "
    add_settings(p, c.SampleConfig, ["n", "seed"])
    add_settings(p, c.SampleConfig, OWN, unset=own)
    class_argument(p)
    p.add_argument(
        "--from",
        dest="picture",
        type=path,
        help="begin with a picture, noised to the t of --start (SDEdit), with n kinds of noise",
    )
    p.add_argument(
        "--mask",
        type=path,
        help="a picture, white where the one of --from is made anew; the rest stays (inpainting)",
    )
    p.add_argument("--resample", type=int, help="with --mask: walks of a step, 1 to 20 (default 1)")
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


def asked(o: argparse.Namespace, facts: Facts) -> c.SampleConfig:
    """The run that the options ask for. Everything else is the model's own setting."""
    facts.require_guided(1 if o.guidance is None else o.guidance)
    chosen = {k: getattr(o, k) for k in ("n", "seed", *OWN) if getattr(o, k) is not None}
    if "timesteps" in chosen:
        chosen["timesteps"] = chosen["timesteps"] or None  # an empty list comes from "none"
    if o.classes is not None:
        chosen["labels"] = facts.parse_classes(o.classes)
    return facts.best.but(**chosen)


def specified(o: argparse.Namespace, checkpoint: Checkpoint) -> RunSpec:
    """The run that the options ask for, with the picture of --from.

    Raises:
        ValueError: the options don't go together, or a picture can't be used.
    """
    from ddpm_demo.inference import given
    from ddpm_demo.inference.spec import RunSpec
    from ddpm_demo.media.open import open_image

    run, model = asked(o, checkpoint.facts), checkpoint.model.config
    if o.picture is None:
        require(o.mask is None, "--mask", None, "given with --from, the picture that it is of")
    require(o.resample is None or bool(o.mask), "--resample", None, "given with --mask")
    if o.picture is None:
        return RunSpec(checkpoint.name, run)
    require(bool(o.start or o.mask), "--from", None, "given with --start, --mask or both")
    instead = "--start and --steps say the same"
    require(not o.timesteps, "--timesteps", None, "left out with --from", instead)
    changes, picture = [], given.write(given.fitted(open_image(o.picture), model))
    if o.start:
        number("start", o.start, 1, checkpoint.diffusion.T, whole=True)
        whole = run.but(start=checkpoint.best.start)
        begun, change = given.begun(checkpoint, whole, [o.start], o.steps or 0)
        run = begun.but(n=o.n, labels=run.labels if o.classes else begun.labels)
        changes.append(change)
    if o.mask:
        mask = given.mask_of(open_image(o.mask), model)
        changes.append(given.kept(mask, checkpoint.diffusion.T, o.resample or 1))
    return RunSpec(checkpoint.name, run, tuple(changes), (picture,))


def player_of(o: argparse.Namespace, checkpoint: Checkpoint, spec: RunSpec) -> Player:
    """A function that plays the run with given settings, such as those of one page."""
    from ddpm_demo.inference import given
    from ddpm_demo.inference.generate import play

    known = given.read(spec.pictures, checkpoint.model.config)
    changes, bf16 = spec.interventions, bool(o.bf16)
    return lambda run: play(checkpoint, run, changes, given=known, bf16=bf16)


def _sample(o: argparse.Namespace) -> None:
    from ddpm_demo.machine.devices import keep_memory, pick
    from ddpm_demo.media import convert
    from ddpm_demo.models.load import load_checkpoint

    kind = suffix(o.out, ".png", ".gif", ".mp4", ".html", ".npz")
    number("scale", o.scale, 1, 64, whole=True)
    film = kind in (".gif", ".mp4") or (kind == ".png" and "strip" in o.out.stem)
    require(not film or o.n <= 256, "n", o.n, "at most 256 for a film or strip")
    keep_memory()
    checkpoint = load_checkpoint(o.model, pick(o.device))
    spec = specified(o, checkpoint)
    run, play = spec.sample, player_of(o, checkpoint, spec)
    number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k has seed + k
    if kind == ".html":
        _write_page(o, checkpoint, spec, play)
        return
    page = o.n if film else PAGE
    play(dataclasses.replace(run, n=1))  # raises errors before the bar appears
    kept = _kept(o, run, checkpoint.model.config.size) if kind != ".npz" else set()
    frames, parts = {}, []
    with progress_bar(total=-(-o.n // page) * _walks(o, run), unit="step") as bar:
        for start in range(0, o.n, page):
            part = dataclasses.replace(run, n=min(page, o.n - start), seed=o.seed + start)
            for step in _counted(play(part), bar):
                if film and step.index in kept:
                    pictures = convert.to_uint8(step.x_t)
                    frames[f"t = {step.t}"] = convert.grid(pictures, scale=o.scale)
            parts.append(convert.to_uint8(step.x_t))
    _write(o, spec.to_metadata(checkpoint.classes), frames, parts)
    print(o.out)


def _walks(o: argparse.Namespace, run: c.SampleConfig) -> int:
    """How often a run moves. --resample repeats every step but the first and the last."""
    return max(1, (run.steps - 2) * (o.resample or 1) + 2)


def _counted(steps: Iterator[Step], bar: Any) -> Iterator[Step]:
    for step in steps:
        bar.update(min(step.index, 1))
        yield step


def _write_page(o: argparse.Namespace, checkpoint: Checkpoint, spec: RunSpec, play: Player) -> None:
    """Write the run as a web page that opens from disk."""
    from ddpm_demo.inference.updates import code, updates
    from ddpm_demo.machine.files import write_atomically
    from ddpm_demo.media.web_page import run_page

    require(o.n <= 64, "n", o.n, "at most 64 for a web page")
    run = spec.sample
    label = SAMPLERS[run.sampler].label
    title = f"{checkpoint.name} · {label} · {counted(run.steps, 'step')} · seed {run.seed}"
    lines = updates(checkpoint, run, spec.interventions)
    look = {"title": title, "meta": spec.to_metadata(checkpoint.classes), "updates": lines}
    with progress_bar(total=_walks(o, run), unit="step") as bar:
        page = run_page(_counted(play(run), bar), look, code(run.sampler))
    write_atomically(o.out, page.encode())
    print(o.out)


def _kept(o: argparse.Namespace, run: c.SampleConfig, size: int) -> set[int]:
    """The steps whose pictures the file shows: ten for a strip, all or most for a film.

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
        about: the metadata of the file.
        frames: the frames of a film or strip, by their labels.
        parts: the pictures in parts, each uint8 (N, H, W, C).
    """
    import numpy as np

    from ddpm_demo.machine.files import write_atomically
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
