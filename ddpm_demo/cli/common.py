"""Functions that several commands share."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo.config.setting import one_of, require
from ddpm_demo.machine.files import require_writable

if TYPE_CHECKING:
    import torch

FILM_FRAMES = 300  # the most frames of a film: 20 seconds
FILM_BYTES = 2**30  # the most bytes of all frames of a film, and of a single picture


def class_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--class",
        dest="classes",
        metavar="CLASSES",
        help="each (all in turn, by seed), any (no class), or names or numbers separated by commas "
        "(default: the class that the model was fine-tuned to, or each)",
    )


def device_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="run the network in bfloat16 (default: only in training, if it is faster)",
    )


def own_device(device: torch.device) -> torch.device:
    """The device of this process: with several processes, the GPU of its local rank."""
    import torch

    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def suffix(path: Path, *allowed: str) -> str:
    """Check the path of an output file, and return its suffix.

    Raises:
        ValueError: the suffix is not allowed, its folder doesn't exist, or the path is a folder.
    """
    kind = path.suffix.lower()
    one_of("suffix of --out", kind, allowed)
    require(not path.is_dir(), "--out", str(path), "a file", "this is a folder")
    require(path.parent.is_dir(), "folder of --out", str(path.parent), "one that exists")
    require_writable(path.parent, "--out")
    return kind


def film_frames(total: int, n: int, size: int, scale: int) -> set[int]:
    """Which of the frames 0..total - 1 a film keeps.

    If there are too many for memory or patience, some are left out evenly. The first and the last
    stay.

    Args:
        n: the number of pictures in a frame, each of `size` x `size` pixels, laid out by
            `convert.grid`.

    Raises:
        ValueError: the frames are so large that the film could keep fewer than ten.
    """
    frame = sheet(n, size, scale, FILM_BYTES // 10)
    most = min(total, FILM_FRAMES, FILM_BYTES // frame)
    return {round(i * (total - 1) / (most - 1)) for i in range(most)} if most > 1 else {0}


def sheet(n: int, size: int, scale: int, most: int = FILM_BYTES) -> int:
    """How many bytes a sheet of n pictures takes.

    Raises:
        ValueError: it takes more than `most`.
    """
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    height, width = ((k * (size + 1) - 1) * scale for k in (rows, columns))
    require(
        3 * height * width <= most,
        "size of --out",
        f"{width} x {height}",
        f"at most {most // 3:,} pixels",
        "choose a smaller -n or --scale",
    )
    return 3 * height * width


def reading(files: list[Path], quiet: bool = False) -> Iterable[Path]:
    """Yield the files of a folder, and show a progress bar if reading takes long."""
    look: dict[str, Any] = {"unit": "picture", "desc": "data", "delay": 1, "leave": False}
    bar: Iterable[Path] = progress_bar(iterable=files, disable=quiet, **look)
    return bar


def say_skipped(reasons: Iterable[str]) -> None:
    """Print a line for each thing that was left out of the data."""
    for reason in dict.fromkeys(reasons):
        print(f"skipped {reason}", file=sys.stderr)


def progress_bar(**options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(dynamic_ncols=True, **options)
