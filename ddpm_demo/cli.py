"""The command line: `python -m ddpm_demo --help`.

Torch is imported by the commands that need it, so that help is instant.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import config as c

if TYPE_CHECKING:
    import torch

    from .checkpoint import Checkpoint
    from .sampling import Step
    from .train import Progress

EXAMPLES = """examples:
  python -m ddpm_demo sample --model mnist --sampler ddim --steps 50 -n 64 --seed 0 --out grid.png
  python -m ddpm_demo sample --model mnist --steps 100 -n 16 --out film.mp4
  python -m ddpm_demo noise --image face.png --schedule cosine --t 100,200,999 --out strip.png
  python -m ddpm_demo train --dataset mnist --minutes 40 --out runs/mnist
  python -m ddpm_demo train --dataset folder:photos --size 64 --images 1000000 --out runs/photos
"""
PAGE = 64  # pictures sampled at a time


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 2 for a wrong argument, or 1 for a failure; both say why."""
    options = parser().parse_args(arguments)
    try:
        return options.run_command(options) or 0
    except ValueError as error:  # also CheckpointError, DataError, ImageError
        return _fail(error, 2)
    except (OSError, FloatingPointError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)


def _fail(message: object, code: int) -> int:
    print(f"ddpm_demo: {message}", file=sys.stderr)
    return code


# ---- arguments ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage above it."""
        self.exit(2, f"ddpm_demo: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="python -m ddpm_demo",
        description="See how a diffusion model works: sample, noise, train and inspect DDPMs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add, name, text in (
        (_sample_arguments, "sample", "draw pictures from a model: a grid, a film or an archive"),
        (_noise_arguments, "noise", "dissolve a picture into noise: the forward process"),
        (_train_arguments, "train", "train a model from scratch, or go on with one"),
        (_models_arguments, "models", "list the shipped models"),
        (_ship_arguments, "ship", "make a training run a shipped model, with its card"),
    ):
        add(
            commands.add_parser(
                name,
                help=text,
                description=text[0].upper() + text[1:] + ".",
                formatter_class=_Help,
            )
        )
    return top


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each line of help, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return f"{action.help or ''} (default: %(default)s)".lstrip()


def _device_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="run the network in bfloat16 (by default where it is faster, for training only)",
    )


def _sample_arguments(p: argparse.ArgumentParser) -> None:
    d = c.SampleConfig()
    p.add_argument(
        "--model", default="mnist", help="a shipped model, a .safetensors file, a folder"
    )
    p.add_argument("--sampler", default=d.sampler, choices=c.SAMPLER_NAMES)
    p.add_argument("--steps", type=int, default=d.steps, help="how many of the T steps to take")
    p.add_argument("-n", type=int, default=d.n, help="number of pictures")
    p.add_argument("--seed", type=int, default=d.seed, help="picture k has the seed SEED + k")
    p.add_argument("--spacing", default=d.spacing, choices=c.SPACINGS, help="which steps to take")
    p.add_argument("--variance", default=d.variance, choices=c.VARIANCES, help="sigma^2 of ddpm")
    p.add_argument("--eta", type=float, default=d.eta, help="noise of ddim: 0 none, 1 as ddpm")
    p.add_argument("--no-clip", action="store_true", help="leave x0_hat outside [-1, 1]")
    p.add_argument("--class", dest="label", help="class by name or number (default: any)")
    p.add_argument("--guidance", type=float, default=d.guidance, help="classifier-free guidance")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        help="*.png: the grid, or with 'strip' in the name ten snapshots of the way; "
        "*.gif, *.mp4: the film; *.npz: uint8 (N, H, W, C) as arr_0",
    )
    p.add_argument("--scale", type=int, default=4, help="pixels of the file per pixel")
    _device_argument(p)
    p.set_defaults(run_command=_sample)


def _noise_arguments(p: argparse.ArgumentParser) -> None:
    d = c.DiffusionConfig()
    p.add_argument("--image", type=Path, required=True, help="any picture")
    p.add_argument(
        "--size", type=int, default=128, help="cut square and resized to this many pixels"
    )
    p.add_argument("--schedule", default=d.schedule, choices=c.SCHEDULES)
    p.add_argument("--beta-start", type=float, default=d.beta_start, help="linear only")
    p.add_argument("--beta-end", type=float, default=d.beta_end, help="linear only")
    p.add_argument("--timesteps", type=int, default=d.T, metavar="T", help="length of the process")
    p.add_argument("--t", help="list of timesteps, such as 100,200,999 (default: ten, evenly)")
    p.add_argument("--noise", default=d.noise, choices=c.NOISES)
    p.add_argument(
        "--chain", action="store_true", help="step by step with fresh noise, not in one jump"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--out", type=Path, default=Path("strip.png"), help="*.png: a strip; *.gif, *.mp4: a film"
    )
    p.set_defaults(run_command=_noise)


def _train_arguments(p: argparse.ArgumentParser) -> None:
    from_parts = ((c.ModelConfig(), "network"), (c.DiffusionConfig(), "process"))
    (model, _), (process, _), run = *from_parts, c.TrainConfig()
    size = "pixels a side (default: the data's own; 32 for folders)"
    g = p.add_argument_group("data")
    g.add_argument(
        "--dataset", default=run.dataset, help="mnist, fashion_mnist, cifar10, folder:PATH"
    )
    g.add_argument("--data-dir", type=Path, help="where the data sets are or are downloaded to")
    g.add_argument("--size", type=int, help=size)
    g.add_argument("--grey", action="store_true", help="train on grey pictures")
    g.add_argument("--only", metavar="CLASS", help="train on one class")
    g.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="mirror half of the pictures"
    )
    g = p.add_argument_group("run")
    g.add_argument(
        "--out", type=Path, required=True, help="folder for weights, state, log, previews"
    )
    g.add_argument("--resume", action="store_true", help="go on from the state in --out")
    g.add_argument("--init", help="start from a model's weights: fine-tune a copy")
    g.add_argument("--images", type=_count, help="stop after this many pictures seen")
    g.add_argument("--epochs", type=float, help="stop after this many passes over the data")
    g.add_argument("--minutes", type=float, help="stop after this many minutes")
    g.add_argument("--preview-every", type=_count, default=run.preview_every, metavar="IMAGES")
    g.add_argument("--seed", type=int, default=run.seed)
    _device_argument(p)
    g = p.add_argument_group("optimisation")
    g.add_argument("--loss", default=run.loss, choices=c.LOSSES)
    g.add_argument("--weighting", default=run.weighting, choices=c.WEIGHTINGS)
    g.add_argument("--batch-size", type=int, default=run.batch_size)
    g.add_argument("--lr", type=float, default=run.lr)
    g.add_argument("--warmup", type=int, default=run.warmup, help="steps of learning rate warm-up")
    g.add_argument("--decay", type=float, default=run.decay, help="last part over which lr falls")
    g.add_argument("--weight-decay", type=float, default=run.weight_decay)
    g.add_argument("--beta2", type=float, default=run.beta2, help="of AdamW")
    g.add_argument("--grad-clip", type=float, default=run.grad_clip)
    g.add_argument("--ema", type=float, default=run.ema)
    g = p.add_argument_group("process")
    g.add_argument("--noise", default=process.noise, choices=c.NOISES)
    g.add_argument("--schedule", default="cosine", choices=c.SCHEDULES)
    g.add_argument("--beta-start", type=float, default=process.beta_start, help="linear only")
    g.add_argument("--beta-end", type=float, default=process.beta_end, help="linear only")
    g.add_argument("--timesteps", type=int, default=process.T, metavar="T")
    g.add_argument("--predict", default=process.predict, choices=c.PREDICTIONS)
    g = p.add_argument_group("network")
    g.add_argument(
        "--paper", action="store_true", help="Ho et al.'s 35.7 M network as the defaults"
    )
    g.add_argument("--width", type=int, help=f"default: {model.width}")
    g.add_argument(
        "--multipliers", type=_numbers, help=f"of the levels; default: {_text(model.multipliers)}"
    )
    g.add_argument("--blocks", type=int, help=f"a level; default: {model.blocks}")
    g.add_argument("--attention", type=_numbers, help="resolutions, or 'none'; default: the lowest")
    g.add_argument("--norm", choices=c.NORMS, help=f"default: {model.norm}")
    g.add_argument("--dropout", type=float, help=f"default: {model.dropout}")
    g.add_argument("--class-conditional", action="store_true", help="learn the classes, and 'any'")
    g.add_argument("--label-dropout", type=float, default=run.label_dropout)
    p.set_defaults(run_command=_train)


def _models_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(run_command=_models)


def _ship_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("run", type=Path, metavar="RUN", help="the folder of a training run")
    p.add_argument("folder", type=Path, metavar="FOLDER", help="such as checkpoints/mnist")
    p.add_argument("--commit", required=True, help="of the code that trained it")
    p.add_argument("--limits", required=True, help="a sentence on what the model can't do")
    p.add_argument("--history", default="", help="a sentence on interruptions")
    p.set_defaults(run_command=_ship)


def _count(text: str) -> int:
    """A whole number, also as 5e6 or 300k."""
    scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower(), 1.0)
    try:
        return int(float(text[:-1] if scale > 1 else text) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number like 500000 or 500k") from None


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 1,2,2") from None


def _text(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


# ---- commands -----------------------------------------------------------------------------------


def _bar(**options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(dynamic_ncols=True, **options)


def _sample(o: argparse.Namespace) -> None:
    import numpy as np

    from . import images
    from .checkpoint import load_checkpoint
    from .devices import pick
    from .files import write_atomically
    from .generate import generate, metadata

    kind = _suffix(o.out, ".png", ".gif", ".mp4", ".npz")
    c.number("scale", o.scale, 1, 64, whole=True)
    film = kind in (".gif", ".mp4") or (kind == ".png" and "strip" in o.out.stem)
    c.require(not film or o.n <= 256, "n", o.n, "at most 256 for a film or strip")
    checkpoint = load_checkpoint(o.model, pick(o.device))
    run = c.SampleConfig(
        o.sampler,
        o.steps,
        o.n,
        o.seed,
        o.spacing,
        o.variance,
        o.eta,
        not o.no_clip,
        _label(o.label, checkpoint),
        o.guidance,
    )
    c.number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k's is seed + k
    page = o.n if film else PAGE
    shown = np.linspace(0, o.steps, min(10, o.steps + 1)).round().astype(int)  # of a strip
    generate(checkpoint, dataclasses.replace(run, n=1))  # refuses before the bar appears
    frames, parts = [], []
    with _bar(total=-(-o.n // page) * o.steps, unit="step") as bar:
        for start in range(0, o.n, page):
            part = dataclasses.replace(run, n=min(page, o.n - start), seed=o.seed + start)
            for step in generate(checkpoint, part, bf16=bool(o.bf16)):
                bar.update(min(step.index, 1))
                if film and (kind != ".png" or step.index in shown):
                    frames.append(_frame(step, o.scale))
            parts.append(images.to_uint8(step.x_t))
    about = metadata(checkpoint.name, run)
    pictures = np.concatenate(parts)
    if kind == ".npz":
        import io

        buffer = io.BytesIO()
        np.savez_compressed(buffer, pictures, metadata=json.dumps(about))
        write_atomically(o.out, buffer.getvalue())
    elif kind != ".png":
        images.write(o.out, frames, metadata=about)
    elif film:
        times = [*_schedule_of(checkpoint).timesteps(o.steps, o.spacing), 0]
        labels = [f"t = {times[i]}" for i in shown]
        images.write(o.out, [images.strip(frames, labels)], metadata=about)
    else:
        images.write(o.out, [images.grid(pictures, scale=o.scale)], metadata=about)
    print(o.out)


def _suffix(out: Path, *allowed: str) -> str:
    """The kind of file that `out` asks for, refused before the work that goes into it."""
    kind = out.suffix.lower()
    c.one_of("suffix of --out", kind, allowed)
    c.require(out.parent.is_dir(), "folder of --out", str(out.parent), "one that exists")
    return kind


def _schedule_of(checkpoint: Checkpoint) -> Any:
    from .schedule import Schedule

    return Schedule.from_config(checkpoint.diffusion)


def _frame(step: Step, scale: int) -> Any:
    from . import images

    return images.grid(images.to_uint8(step.x_t), scale=scale)


def _label(text: str | None, checkpoint: Checkpoint) -> int | None:
    if text is None or text == "any":
        return None
    classes = checkpoint.classes
    if text in classes:
        return classes.index(text)
    allowed = "any" + (", 0 to " + str(len(classes) - 1) if classes else "")
    number = int(text) if text.isdecimal() else -1
    c.require(0 <= number < len(classes), "class", text, ", ".join([allowed, *classes]))
    return number


def _noise(o: argparse.Namespace) -> None:
    import numpy as np

    from . import images
    from .forward import chain
    from .noise import Noise
    from .schedule import Schedule
    from .timesteps import default_timesteps, parse_timesteps

    kind = _suffix(o.out, ".png", ".gif", ".mp4")
    c.number("size", o.size, 8, 1024, whole=True)
    c.number("seed", o.seed, 0, c.SEED_MAX, whole=True)
    process = c.DiffusionConfig(o.timesteps, o.schedule, o.beta_start, o.beta_end, o.noise)
    listed = default_timesteps(o.timesteps) if o.t is None else parse_timesteps(o.t, o.timesteps)
    image = images.square(images.open_image(o.image), o.size)
    x_0 = images.to_tensor(np.asarray(image)[None])
    schedule, noise = Schedule.from_config(process), Noise(o.noise, [o.seed])
    if kind == ".png":
        shown = [0, *listed]
    else:  # a film over all of t, at most 150 frames
        shown = sorted({round(o.timesteps * k / 149) for k in range(150)})
    if o.chain:
        at = {0: x_0} | {s.t: s.x_t for s in chain(schedule, x_0, noise) if s.t in shown}
    else:
        eps = noise.like(x_0)
        at = {t: schedule.q_sample(x_0, t, eps) for t in shown}
    frames = [images.to_uint8(at[t])[0] for t in _bar(iterable=shown, unit="frame")]
    about = {"program": "ddpm_demo", "seed": str(o.seed), "t": _text(listed)}
    about |= {k: str(v) for k, v in dataclasses.asdict(process).items()}
    if kind == ".png":
        frames = [images.strip(frames, [f"t = {t}" for t in shown])]
    images.write(o.out, frames, metadata=about)
    print(o.out)


def _network(o: argparse.Namespace, size: int, channels: int, classes: int) -> c.ModelConfig:
    """The network that the arguments ask for, at the size of the data."""
    given = {
        k: getattr(o, k)
        for k in ("width", "multipliers", "blocks", "attention", "norm", "dropout")
        if getattr(o, k) is not None
    }
    given |= {"size": size, "channels": channels, "num_classes": classes}
    if o.paper:
        return c.ModelConfig.paper(**given)
    levels = len(given.get("multipliers", c.ModelConfig.multipliers))
    lowest = -(-size // 2 ** (levels - 1))
    return c.ModelConfig(**({"attention": (lowest,)} | given))


def _train(o: argparse.Namespace) -> None:
    from . import data as d
    from .checkpoint import load_checkpoint
    from .devices import pick
    from .train import train

    names = {f.name for f in dataclasses.fields(c.TrainConfig)}
    config = c.TrainConfig(**{k: v for k, v in vars(o).items() if k in names})
    c.require(
        o.resume or not (o.out / "state.safetensors").exists(),
        "--out",
        str(o.out),
        "a folder without a run in it, or --resume to go on with that run",
    )
    c.require(not o.out.is_file(), "--out", str(o.out), "a folder")
    config.require_length()
    process = c.DiffusionConfig(
        o.timesteps, o.schedule, o.beta_start, o.beta_end, o.noise, o.predict
    )
    folder = o.data_dir or d.DATA_DIR
    init = load_checkpoint(o.init) if o.init else None
    if init:
        process, o.size, o.grey = (
            init.diffusion,
            init.model.config.size,
            init.model.config.channels == 1,
        )
    sets = []
    for train_split in (True, False):
        images = d.load(
            o.dataset, folder, train=train_split, size=o.size, channels=1 if o.grey else None
        )
        sets.append(images.only(o.only) if o.only else images)
    for reason in sets[0].skipped:
        print(f"skipped {reason}", file=sys.stderr)
    n, channels, size = *sets[0].pixels.shape[:2], sets[0].pixels.shape[2]
    classes = len(sets[0].classes) if o.class_conditional else 0
    c.require(
        not o.class_conditional or classes > 0, "class-conditional", True, "data that has classes"
    )
    model = init or _network(o, size, channels, classes)
    stopped: list[int] = []
    run = train(
        model,
        process,
        config,
        sets[0],
        o.out,
        held_out=sets[1],
        resume=o.resume,
        device=_own_device(pick(o.device)),
        bf16=o.bf16,
        should_stop=lambda: bool(stopped),
    )
    print(f"{n:,} pictures of {channels} x {size} x {size}", file=sys.stderr)
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda n, _frame: stopped.append(n)) for n in signals]
    try:
        _follow(run, o.out)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if stopped:
        print(f"Stopped and saved; go on with --resume --out {o.out}.", file=sys.stderr)


def _own_device(device: torch.device) -> torch.device:
    """Each process of a node takes the GPU of its local rank."""
    import torch

    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if device.type == "cuda"
        else device
    )


def _follow(run: Iterator[Progress], out: Path) -> None:
    """Drain a run: a bar, a line a report in log.jsonl, and a grid of samples."""
    from . import images

    leader = os.environ.get("RANK", "0") == "0"
    with _bar(total=100.0, bar_format="{l_bar}{bar}| {postfix}", disable=not leader) as bar:
        for p in run:
            if not leader:
                continue
            bar.n = round(100 * p.done, 2)
            hours, minutes = divmod(int(p.eta // 60), 60) if p.done else (0, 0)
            bar.set_postfix_str(
                f"{p.images:,} images, loss {p.loss:.4f}, {p.rate:.0f} images/s, "
                f"{hours} h {minutes:02d} min to go"
            )
            if not p.report:
                continue
            r = p.report
            line = {
                "step": p.step,
                "images": p.images,
                "seconds": round(p.seconds),
                "lr": p.lr,
                "train": r.train_loss,
                "held_out": r.held_out,
                "loss_by_t": r.loss_by_t,
            }
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            sheet = images.grid(images.to_uint8(r.preview), scale=4)
            images.write(out / f"preview-{p.images:09d}.png", [sheet])
            held_out = "" if r.held_out is None else f", held-out loss {r.held_out:.4f}"
            bar.write(f"{p.images:>11,} images: loss {r.train_loss:.4f}{held_out}", file=sys.stderr)


def _models(o: argparse.Namespace) -> None:
    from .checkpoint import available, load_checkpoint

    rows = []
    for name in available():
        m = load_checkpoint(name)
        size, millions = m.model.config.size, sum(p.numel() for p in m.model.parameters()) / 1e6
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
    from .card import ship

    ship(o.run, o.folder, commit=o.commit, limits=o.limits, history=o.history)
    print(o.folder)
