"""The command noise: dissolve a picture into noise."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ddpm_demo import config as c
from ddpm_demo.cli.options import add_settings, path, progress_bar, suffix, text
from ddpm_demo.config import number

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
    p.add_argument("--seed", type=int, default=0, help="seed of the noise")
    p.add_argument(
        "--out", type=path, default=Path("strip.png"), help="*.png: a strip; *.gif, *.mp4: a film"
    )
    p.set_defaults(run_command=_noise)


def _noise(o: argparse.Namespace) -> None:
    import numpy as np

    from ddpm_demo.config import default_timesteps, parse_timesteps
    from ddpm_demo.diffusion import Noise, Schedule, chain
    from ddpm_demo.media import convert, encode
    from ddpm_demo.media.open import open_image

    kind = suffix(o.out, ".png", ".gif", ".mp4")
    number("size", o.size, 8, 1024, whole=True)
    number("seed", o.seed, 0, c.SEED_MAX, whole=True)
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
