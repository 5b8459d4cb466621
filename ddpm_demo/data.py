"""Training data: whole data sets as uint8 tensors in memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ddpm_demo.config import number, require
from ddpm_demo.media.images import ImageError, open_image, square

NAMES = ("mnist", "fashion_mnist", "cifar10")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
DATA_DIR = Path(os.environ.get("DDPM_DEMO_DATA") or Path.home() / ".cache" / "ddpm_demo" / "data")
# What is downloaded: where it is put, and its bytes.
ARCHIVES = {
    "mnist": ("MNIST/raw", 11_594_722),
    "fashion_mnist": ("FashionMNIST/raw", 30_878_645),
    "cifar10": ("", 170_498_071),
}
RESIDENT = 0.25  # share of a GPU's memory that pictures may live in
FLIPS = {"mnist": False, "fashion_mnist": True, "cifar10": True}


class DataError(ValueError):
    """The data can't be had; the message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Images:
    """Pictures and labels.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, indices into `classes`; all 0 where there are no classes.
        classes: their names, or none.
        flip: whether a mirrored picture is still one of the data set.
        skipped: files that could not be read, with the reason.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    flip: bool = False
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Tensor) -> Tensor:
        """(len(index), C, H, W) float32 in [-1, 1]."""
        return self.pixels[index].float() / 127.5 - 1

    def on(self, device: torch.device) -> Images:
        """The same with the pixels on a GPU, if it has the room; batches then come from there."""
        if device.type != "cuda":
            return self
        fits = (
            self.pixels.nbytes <= RESIDENT * torch.cuda.get_device_properties(device).total_memory
        )
        return replace(self, pixels=self.pixels.to(device)) if fits else self

    def only(self, name: str) -> Images:
        """The pictures of one class.

        Raises:
            ValueError: there is no such class.
        """
        require(name in self.classes, "class", name, ", ".join(self.classes) or "none")
        keep = self.labels == self.classes.index(name)
        return replace(self, pixels=self.pixels[keep], labels=self.labels[keep])


def load(
    dataset: str,
    data_dir: Path = DATA_DIR,
    *,
    train: bool = True,
    size: int | None = None,
    channels: int | None = None,
    progress: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Images:
    """A data set by name: mnist, fashion_mnist, cifar10, or folder:PATH.

    The named ones are downloaded by torchvision on first use. A folder holds jpg, png or webp
    pictures at any depth, cut square and resized to `size`; every 20th of them, chosen by a hash of
    its name, is held out from training.

    Args:
        size: pixels a side; None keeps the data set's own (32 for folders).
        channels: 1 or 3; None keeps the data set's own (3 for folders).
        progress: wraps the files of a folder while they are read, as `tqdm` does.

    Raises:
        DataError: unknown name, no data and no network, or no readable picture to train on.
    """
    if size is not None:
        number("size", size, 8, 1024, whole=True)
    if dataset.startswith("folder:"):
        folder = Path(dataset.removeprefix("folder:"))
        return _folder(folder, train, size or 32, channels or 3, progress)
    if dataset not in NAMES:
        raise DataError(f"dataset is {dataset!r}; allowed is {', '.join(NAMES)} or folder:PATH.")
    from torchvision import datasets

    kind = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}[dataset]
    cls = getattr(datasets, kind)
    try:
        with _alone_in(data_dir):
            try:
                data = cls(data_dir, train=train, download=False)
            except RuntimeError:  # not there yet
                data = cls(data_dir, train=train, download=True)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(":")
        raise DataError(
            f"{dataset} is not in {data_dir}, or not whole, and can't be downloaded ({reason}); "
            "connect once, or name the folder that holds it (--data-dir or DDPM_DEMO_DATA)."
        ) from error
    pixels = torch.as_tensor(data.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(
        _fit(pixels, size, channels).contiguous(),
        torch.as_tensor(data.targets),
        tuple(data.classes),
        FLIPS[dataset],
    )


def arrived(dataset: str, data_dir: Path = DATA_DIR) -> tuple[int, int]:
    """Bytes of a named data set's archives that are on the disk so far, and all that will be."""
    folder, size = ARCHIVES[dataset]
    try:
        come = sum(p.stat().st_size for p in (data_dir / folder).glob("*.gz"))
    except OSError:  # one was renamed or deleted in between
        come = 0
    return min(come, size), size


def _fit(pixels: Tensor, size: int | None, channels: int | None) -> Tensor:
    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    elif channels == 1 and pixels.shape[1] == 3:
        grey = torch.tensor([299, 587, 114]).view(1, 3, 1, 1)  # ITU-R 601, as Pillow's "L"
        pixels = (pixels.to(torch.int32) * grey).sum(1, keepdim=True).div(1000).round().byte()
    if size is None or pixels.shape[-1] == size:
        return pixels
    border = size - pixels.shape[-1]
    if pixels.shape[-1] == 28 and 0 < border <= 8 and border % 2 == 0:  # MNIST: no blur
        return torch.nn.functional.pad(pixels, [border // 2] * 4)
    from torchvision.transforms.v2.functional import resize

    return torch.cat([resize(part, [size, size], antialias=True) for part in pixels.split(4096)])


def _held_out(path: Path) -> bool:
    return hashlib.sha1(path.name.encode()).digest()[0] * 20 < 256


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """So that of several processes one downloads, and the others wait for it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where nobody can write, nobody downloads
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock"))
        yield


def _folder(
    root: Path,
    train: bool,
    size: int,
    channels: int,
    progress: Callable[[list[Path]], Iterable[Path]],
) -> Images:
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if len(files) >= 40:  # too few to hold any out: then the training pictures are all there is
        files = [p for p in files if _held_out(p) != train]
    pictures, skipped = [], []
    for path in progress(files):
        try:
            image = square(open_image(path), size).convert("L" if channels == 1 else "RGB")
        except ImageError as error:
            skipped.append(f"{path}: {error}")
        else:
            pictures.append(np.asarray(image))
    if not pictures and train:  # that none is held out may just happen
        found = f"none of its {len(files)} pictures can be read" if files else "it has none"
        raise DataError(f"{root} should hold jpg, png or webp pictures, but {found}.")
    pixels = torch.from_numpy(np.array(pictures, np.uint8).reshape(-1, size, size, channels))
    pixels, labels = pixels.permute(0, 3, 1, 2).contiguous(), torch.zeros(len(pictures)).long()
    return Images(pixels, labels, flip=True, skipped=tuple(skipped))
