"""Training data: whole data sets as uint8 tensors in memory.

`DATASETS` has a row for each named data set. The command line, the app, the cards and `evaluate`
offer every row. `folder:PATH` names a folder with your own pictures. Torch is imported only where
it is needed, so that help is instant.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ddpm_demo.config import SettingError, either, number
from ddpm_demo.data.folder import folder_state, read_folder
from ddpm_demo.data.images import NO_LABEL as NO_LABEL
from ddpm_demo.data.images import DataError as DataError
from ddpm_demo.data.images import Images as Images
from ddpm_demo.machine.files import cache_folder, expand

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "folder:"
VARIABLE = "DDPM_DEMO_DATA"  # an environment variable: the folder of the data sets


@dataclass(frozen=True)
class DataSet:
    """A row of `DATASETS`.

    Attributes:
        load: takes the folder of all data sets, and True for the training split. Returns the
            pictures at their own size. May raise OSError, RuntimeError or ValueError.
        size, channels: the size and channels of its pictures.
        about: who made it, its licence, and how many pictures it has, for the cards.
        things, thing: words for all its pictures, and for one of them.
        judge: `widths`, `dim` and `epochs` of its classifier, if it has one.
        archives: the pattern of the downloaded files in the folder, and their bytes, if known.
    """

    load: Callable[[Path, bool], Images]
    size: int
    channels: int
    about: str
    things: str = "pictures"
    thing: str = "one class"
    judge: Mapping[str, Any] = field(default_factory=dict)
    archives: tuple[str, int] | None = None


def _torchvision(kind: str, flip: bool, folder: Path, train: bool) -> Images:
    """Load one of torchvision's data sets, and download it on first use."""
    import torch
    from torchvision import datasets

    cls = getattr(datasets, kind)
    try:
        found = cls(folder, train=train, download=False)
    except RuntimeError:  # it isn't on this disk yet
        found = cls(folder, train=train, download=True)
    pixels = torch.as_tensor(found.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Images(pixels, torch.as_tensor(found.targets), tuple(found.classes), flip)


DATASETS: dict[str, DataSet] = {
    "mnist": DataSet(
        partial(_torchvision, "MNIST", False),  # a mirrored 2 is no digit
        size=28,
        channels=1,
        about="MNIST (LeCun, Bottou, Bengio & Haffner 1998), commonly taken to be CC BY-SA 3.0: "
        "60,000 training pictures of handwritten digits.",
        things="digits",
        thing="a digit",
        judge={"widths": (16, 32, 64, 64), "dim": 64, "epochs": 3},
        archives=("MNIST/raw/*.gz", 11_594_722),
    ),
    "fashion_mnist": DataSet(
        partial(_torchvision, "FashionMNIST", True),
        size=28,
        channels=1,
        about="Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), MIT licence: 60,000 training "
        "pictures of clothes.",
        things="clothes",
        thing="a piece of clothing",
        judge={"widths": (32, 64, 128, 128), "dim": 64, "epochs": 12},
        archives=("FashionMNIST/raw/*.gz", 30_878_645),
    ),
    "cifar10": DataSet(
        partial(_torchvision, "CIFAR10", True),
        size=32,
        channels=3,
        about="CIFAR-10 (Krizhevsky 2009), no explicit licence, its authors ask to be cited: "
        "50,000 training pictures of ten classes.",
        things="photos",
        judge={"widths": (32, 64, 128, 256), "dim": 128, "epochs": 20},
        archives=("*.gz", 170_498_071),
    ),
}


def is_folder(dataset: str) -> bool:
    """True if the name is folder:PATH, not a row of `DATASETS`."""
    return dataset.startswith(FOLDER)


def known(dataset: object) -> bool:
    """True if the name is a row of `DATASETS` or folder:PATH."""
    return isinstance(dataset, str) and (dataset in DATASETS or is_folder(dataset))


def named(extra: str = f"{FOLDER}PATH") -> str:
    """The names of all data sets, for help and messages."""
    return either([*DATASETS, *[extra] * bool(extra)])


def shown(dataset: str) -> str:
    """The name of a data set to publish. It has a folder's own name, but not its path."""
    if not is_folder(dataset):
        return dataset
    path = Path(dataset.removeprefix(FOLDER).strip())
    with contextlib.suppress(ValueError):  # if it can't be expanded, its name is still known
        path = expand(path)
    return FOLDER + (path.name or path.resolve().name)


def place_of(dataset: str) -> Path:
    """The folder that folder:PATH names.

    Raises:
        DataError: the path is empty.
    """
    place = dataset.removeprefix(FOLDER).strip()
    if not place:  # an empty path would mean the working folder
        raise DataError(f"{dataset!r} names no folder; one that does is {FOLDER}photos.")
    return expand(place)


def state(dataset: str) -> str:
    """A text that changes when a folder's files change, so that it must be read again."""
    return folder_state(place_of(dataset)) if is_folder(dataset) else ""


def data_dir() -> Path:
    """The folder where the data sets are, or are downloaded to.

    Raises:
        ValueError: the user has no home folder, and the environment names no other folder.
    """
    if given := os.environ.get(VARIABLE):
        return expand(given)
    return cache_folder("data", f"--data-dir or {VARIABLE}")


def load(
    dataset: str,
    folder: Path | None = None,
    *,
    train: bool = True,
    size: int | None = None,
    channels: int | None = None,
    progress: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Images:
    """Load a data set: a row of `DATASETS`, or folder:PATH.

    A named data set is downloaded on first use. For a folder, all pictures at any depth are cut
    square and resized to `size`. About one in 20 is held out from training; a hash of its path
    below the folder decides which.

    Args:
        folder: the folder of the named data sets; `data_dir()` by default.
        train: True for the training pictures, False for those held out.
        size: pixels a side; None keeps the data set's own (32 for folders).
        channels: 1 or 3; None keeps the data set's own (3 for folders).
        progress: wraps the list of a folder's files while they are read, as `tqdm` does.

    Raises:
        DataError: the name is unknown, the data can't be downloaded, or no picture can be read.
    """
    if size is not None:
        number("size", size, 8, 1024, whole=True)
    if is_folder(dataset):
        return read_folder(place_of(dataset), train, size or 32, channels or 3, progress)
    if dataset not in DATASETS:
        raise DataError(str(SettingError("dataset", dataset, named())))
    folder = data_dir() if folder is None else expand(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; --data-dir or {VARIABLE} names a folder.")
    try:
        with _alone_in(folder):
            found = DATASETS[dataset].load(folder, train)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(":")
        raise DataError(
            f"{dataset} is not in {folder}, or not whole, and can't be downloaded ({reason}); "
            f"connect once, or name the folder that holds it (--data-dir or {VARIABLE})."
        ) from error
    return replace(found, pixels=fitted(found.pixels, size, channels).contiguous())


def arrived(dataset: str, folder: Path | None = None) -> tuple[int, int]:
    """How many bytes of a data set's archives are on this disk, and how many there will be."""
    row = DATASETS.get(dataset)
    if row is None or row.archives is None:
        return 0, 0
    pattern, size = row.archives
    try:
        folder = data_dir() if folder is None else expand(folder)
        come = sum(p.stat().st_size for p in folder.glob(pattern))
    except (OSError, ValueError):  # a file has just gone, or there is no home folder
        come = 0
    return min(come, size), size


def frame_of(size: int, larger: int) -> int:
    """The width of a black frame that enlarges 28 x 28 pictures without a blur; 0 if none fits."""
    border = larger - size
    return border // 2 if size == 28 and 0 < border <= 8 and border % 2 == 0 else 0


def fitted(pixels: Tensor, size: int | None, channels: int | None) -> Tensor:
    import torch

    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    elif channels == 1 and pixels.shape[1] == 3:
        grey = torch.tensor([299, 587, 114]).view(1, 3, 1, 1)  # ITU-R 601, as Pillow's "L"
        pixels = (pixels.to(torch.int32) * grey).sum(1, keepdim=True).div(1000).round().byte()
    if size is None or pixels.shape[-1] == size:
        return pixels
    if frame := frame_of(pixels.shape[-1], size):
        return torch.nn.functional.pad(pixels, [frame] * 4)
    from torchvision.transforms.v2.functional import resize

    return torch.cat([resize(part, [size, size], antialias=True) for part in pixels.split(4096)])


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process download while others wait for it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # in a read-only folder, nobody downloads
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock"))
        yield
