"""What several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo.config import one_of, require

if TYPE_CHECKING:
    import torch


def device_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="run the network in bfloat16 (by default where it is faster, for training only)",
    )


def own_device(device: torch.device) -> torch.device:
    """Each process of a node takes the GPU of its local rank."""
    import torch

    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def count(word: str) -> int:
    """A whole number, also as 5e6 or 300k."""
    scale = {"k": 1e3, "m": 1e6}.get(word[-1:].lower(), 1.0)
    try:
        return int(float(word[:-1] if scale > 1 else word) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number like 500000 or 500k") from None


def numbers(words: str) -> tuple[int, ...]:
    try:
        return () if words == "none" else tuple(int(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 1,2,2") from None


def text(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def suffix(path: Path, *allowed: str) -> str:
    """The suffix of an output file whose folder exists.

    Raises:
        ValueError: another suffix, or no such folder.
    """
    kind = path.suffix.lower()
    one_of("suffix of --out", kind, allowed)
    require(path.parent.is_dir(), "folder of --out", str(path.parent), "one that exists")
    return kind


def progress_bar(**options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(dynamic_ncols=True, **options)
