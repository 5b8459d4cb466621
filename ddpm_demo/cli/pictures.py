"""The commands that make pictures: sample and noise."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.common import (
    FILM_FRAMES,
    class_argument,
    device_argument,
    film_frames,
    progress_bar,
    sheet,
    suffix,
)
from ddpm_demo.cli.options import add_settings, model_name, path, text

if TYPE_CHECKING:
    from ddpm_demo.diffusion.walk import Step
    from ddpm_demo.models.checkpoint import Checkpoint
    from ddpm_demo.models.zoo import Facts

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
        "*.npz: uint8 (N, H, W, C) as arr_0",
    )
    p.add_argument("--scale", type=int, default=4, help="pixels of the file per pixel")
    device_argument(p)
    p.set_defaults(run_command=_sample)


NOISED = ("schedule", "beta_start", "beta_end", "T", "noise")


def noise_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--image", type=path, required=True, help="any picture")
    p.add_argument(
        "--size", type=int, default=128, help="cut square and resized to this many pixels"
    )
    add_settings(p, c.DiffusionConfig, NOISED)
    p.add_argument("--t", help="list of timesteps, such as 100,200,999 (default: ten, evenly)")
    p.add_argument(
        "--chain", action="store_true", help="step by step with fresh noise, not in one jump"
    )
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument(
        "--out", type=path, default=Path("strip.png"), help="*.png: a strip; *.gif, *.mp4: a film"
    )
    p.set_defaults(run_command=_noise)


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
    import numpy as np

    from ddpm_demo.devices import keep_memory, pick
    from ddpm_demo.files import write_atomically
    from ddpm_demo.inference.generate import generate, metadata, timesteps_of
    from ddpm_demo.media import convert, encode
    from ddpm_demo.models.load import load_checkpoint

    kind = suffix(o.out, ".png", ".gif", ".mp4", ".npz")
    c.number("scale", o.scale, 1, 64, whole=True)
    film = kind in (".gif", ".mp4") or (kind == ".png" and "strip" in o.out.stem)
    c.require(not film or o.n <= 256, "n", o.n, "at most 256 for a film or strip")
    keep_memory()
    checkpoint = load_checkpoint(o.model, pick(o.device))
    run = asked(o, checkpoint)
    c.number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k's is seed + k
    page = o.n if film else PAGE
    generate(checkpoint, dataclasses.replace(run, n=1))  # refuses before the bar appears
    size, kept = checkpoint.model.config.size, set()  # kept: of the steps, for film or strip
    if kind in (".gif", ".mp4"):
        kept = film_frames(run.steps + 1, o.n, size, o.scale)
    elif kind == ".png":
        if film:
            kept = set(np.linspace(0, run.steps, min(10, run.steps + 1)).round().astype(int))
        sheet(o.n * max(1, len(kept)), size, o.scale)
    frames, parts = [], []
    with progress_bar(total=-(-o.n // page) * run.steps, unit="step") as bar:
        for start in range(0, o.n, page):
            part = dataclasses.replace(run, n=min(page, o.n - start), seed=o.seed + start)
            for step in generate(checkpoint, part, bf16=bool(o.bf16)):
                bar.update(min(step.index, 1))
                if step.index in kept:
                    frames.append(_frame(step, o.scale))
            parts.append(convert.to_uint8(step.x_t))
    about = metadata(checkpoint.name, run)
    pictures = np.concatenate(parts)
    if kind == ".npz":
        import io

        buffer = io.BytesIO()
        np.savez_compressed(buffer, pictures, metadata=json.dumps(about))
        write_atomically(o.out, buffer.getvalue())
    elif kind != ".png":
        encode.write(o.out, frames, metadata=about)
    elif film:
        times = [*timesteps_of(checkpoint, run), 0]
        labels = [f"t = {times[i]}" for i in sorted(kept)]
        encode.write(o.out, [convert.strip(frames, labels)], metadata=about)
    else:
        encode.write(o.out, [convert.grid(pictures, scale=o.scale)], metadata=about)
    print(o.out)


def _frame(step: Step, scale: int) -> Any:
    from ddpm_demo.media import convert

    return convert.grid(convert.to_uint8(step.x_t), scale=scale)


def _noise(o: argparse.Namespace) -> None:
    import numpy as np

    from ddpm_demo.diffusion.forward import chain
    from ddpm_demo.diffusion.noise import Noise
    from ddpm_demo.diffusion.schedule import Schedule
    from ddpm_demo.diffusion.timesteps import default_timesteps, parse_timesteps
    from ddpm_demo.media import convert, encode
    from ddpm_demo.media.open import open_image

    kind = suffix(o.out, ".png", ".gif", ".mp4")
    c.number("size", o.size, 8, 1024, whole=True)
    c.number("seed", o.seed, 0, c.SEED_MAX, whole=True)
    process = c.DiffusionConfig(**{name: getattr(o, name) for name in NOISED})
    listed = default_timesteps(o.T) if o.t is None else parse_timesteps(o.t, o.T)
    image = convert.square(open_image(o.image), o.size)
    x_0 = convert.to_tensor(np.asarray(image)[None])
    schedule, noise = Schedule.from_config(process), Noise(o.noise, [o.seed])
    film = sorted({round(o.T * k / 149) for k in range(150)})  # over all of t
    shown = [0, *listed] if kind == ".png" else film
    if o.chain:
        at = {0: x_0} | {s.t: s.x_t for s in chain(schedule, x_0, noise) if s.t in shown}
    else:
        eps = noise.like(x_0)
        at = {t: schedule.q_sample(x_0, t, eps) for t in shown}
    frames = [convert.to_uint8(at[t])[0] for t in progress_bar(iterable=shown, unit="frame")]
    about = {"program": "ddpm_demo", "seed": str(o.seed), "t": text(listed)}
    about |= {k: str(v) for k, v in dataclasses.asdict(process).items()}
    if kind == ".png":
        frames = [convert.strip(frames, [f"t = {t}" for t in shown])]
    encode.write(o.out, frames, metadata=about)
    print(o.out)
