"""MNIST in one file beside this module, so that no network is needed.

`mnist.xz` holds all 70,000 pictures of MNIST (LeCun, Cortes & Burges 1998, commonly taken to be
CC BY-SA 3.0) without loss. The 60,000 training pictures come first, and the labels come last, one
byte each. `python -m ddpm_demo.data.packed --data-dir FOLDER` wrote it from the original files.
"""

from __future__ import annotations

import argparse
import functools
import lzma
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_demo.data.images import Images

if TYPE_CHECKING:
    import numpy as np

FILE = Path(__file__).with_name("mnist.xz")
TRAIN, TEST, SIDE = 60_000, 10_000, 28
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = tuple(f"{k} - {name}" for k, name in enumerate(DIGITS))
# For these pictures, a larger lc (bits of the last byte that predict the next) packs better.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0, "dict_size": 1 << 26}]


@functools.lru_cache(maxsize=1)
def _unpacked() -> np.ndarray:
    import numpy as np

    return np.frombuffer(lzma.decompress(FILE.read_bytes()), np.uint8)


def mnist(train: bool = True) -> Images:
    """Read the pictures of one split, 28 x 28, and their labels.

    Raises:
        OSError: the file is missing.
    """
    import torch

    every = torch.from_numpy(_unpacked().copy())
    pixels, labels = every[: -(TRAIN + TEST)], every[-(TRAIN + TEST) :]
    part = slice(TRAIN) if train else slice(TRAIN, None)
    return Images(
        pixels.view(-1, 1, SIDE, SIDE)[part].clone(), labels[part].long(), CLASSES, flip=False
    )


def main() -> None:
    from ddpm_demo.data import load

    p = argparse.ArgumentParser(prog="python -m ddpm_demo.data.packed", description=__doc__)
    p.add_argument("--data-dir", type=Path, required=True, help="folder with the original files")
    folder = p.parse_args().data_dir
    splits = [load("mnist", folder, train=train) for train in (True, False)]
    parts = [s.pixels.numpy().tobytes() for s in splits]
    parts += [s.labels.byte().numpy().tobytes() for s in splits]
    FILE.write_bytes(lzma.compress(b"".join(parts), filters=FILTERS))


if __name__ == "__main__":
    main()
