"""Options of the command line, made from the settings of `config`, and what commands share."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo.config import Setting, one_of, require, settings
from ddpm_demo.machine.files import expand, require_writable

if TYPE_CHECKING:
    import torch

COUNTS = 10**12  # settings that may be this large can be written as 5e6 or 300k


def add_settings(
    p: argparse._ActionsContainer,
    cls: type,
    names: Sequence[str],
    *,
    unset: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add an option for each of the named settings of a dataclass.

    Args:
        unset: makes None the default of the options. These words then begin the default in the
            help, and the setting's own default follows.
        changes: arguments of `add_argument`, by setting. They override the setting's own.
    """
    known = settings(cls)
    for name in names:
        field, about = known[name]
        given: dict[str, Any] = {"dest": name, "default": field.default, "help": about.help}
        if about.choices:
            given["choices"] = about.choices
        else:
            given |= _kind(field, about)
        given |= (changes or {}).get(name, {})
        if unset is not None:
            given["default"] = None
            given["help"] += f" (default: {unset}{_spoken(field.default, about)})"
        elif field.default is None and about.none:
            given["help"] += f" (default: {about.none})"
        p.add_argument(option(name, about), **given)


def option(name: str, about: Setting) -> str:
    """The name of a setting on the command line."""
    word = (about.option or name).replace("_", "-")
    return f"--{word}" if len(word) > 1 else f"-{word}"


def _kind(field: dataclasses.Field[Any], about: Setting) -> dict[str, Any]:
    """The arguments of `add_argument` for the type of a field, which is stored as text."""
    kind = str(field.type).split(" |")[0]
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if kind == "int" and (about.high or 0) >= COUNTS:
        return {"type": count}
    types: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
    types["tuple[float, ...]"] = shares
    return {"type": types.get(kind, numbers)}


def _spoken(default: Any, about: Setting) -> str:
    if about.none:
        return about.none
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return text(default)
    return str(default)


def count(word: str) -> int:
    """Read a whole number, such as 500000, 5e6 or 300k."""
    scale = {"k": 1e3, "m": 1e6}.get(word[-1:].lower(), 1.0)
    try:
        return round(float(word[:-1] if scale > 1 else word) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number like 500000 or 500k") from None


def numbers(words: str) -> tuple[int, ...]:
    """Read whole numbers, separated by commas. "none" is an empty list."""
    try:
        return () if words == "none" else tuple(int(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 1,2,2") from None


def shares(words: str) -> tuple[float, ...]:
    """Read numbers, separated by commas. "none" is an empty list."""
    try:
        return () if words == "none" else tuple(float(part) for part in words.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not a list like 0.05,0.1") from None


def text(numbers: Sequence[float]) -> str:
    """Write numbers as `numbers` reads them."""
    return ",".join(map(str, numbers)) or "none"


def path(word: str) -> Path:
    """Read a path. ~ or $NAME at its beginning is replaced by what it stands for."""
    if not word.strip():  # an empty path, as from an empty "$NAME", would be the working folder
        raise argparse.ArgumentTypeError(f"{word!r} names no file or folder")
    try:
        return expand(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def model_name(word: str) -> str:
    """Read a model's name, or its path like `path`."""
    return str(path(word)) if word.startswith(("~", "$")) else word


def dataset_name(word: str) -> str:
    """Read a data set's name, or folder:PATH with the path like `path`."""
    kind, _, place = word.partition(":")
    short = kind == "folder" and place.strip().startswith(("~", "$"))
    return f"{kind}:{path(place.strip())}" if short else word


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
