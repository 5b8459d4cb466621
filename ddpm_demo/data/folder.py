"""Reads the pictures of a folder, and decides which are held out."""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from ddpm_demo.data.images import NO_LABEL, DataError, Images

SMALL = 40  # a folder with fewer pictures holds none out; it uses all of them for both splits
OTHERS = 50_000  # after this many other files, a folder with hardly any pictures is refused


def held_out(path: Path, root: Path) -> bool:
    """True for one picture in twenty. It depends only on the path below the root, on any system."""
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    return hashlib.sha1(name.encode(errors="surrogateescape")).digest()[0] * 20 < 256


def _require_pictures(root: Path, found: int, others: int) -> None:
    if others == OTHERS > 100 * found:
        raise DataError(
            f"{root} holds all sorts of files: of the first {OTHERS + found:,}, {found:,} are "
            "pictures. Name the folder below it that holds them."
        )


def _files(root: Path) -> tuple[list[Path], list[str]]:
    """Find the pictures below a folder, each once, sorted by path; and say what was left out.

    Links are followed last, so that files below the root keep their own paths. A file or folder
    counts only once, and links to folders above the root are not followed. So there are no loops.

    Raises:
        DataError: nearly all files are not pictures, as on a whole disk or in a home folder.
    """
    from ddpm_demo.media.open import suffixes

    above = {(about.st_dev, about.st_ino) for about in map(Path.stat, root.resolve().parents)}
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    others: Counter[str] = Counter()
    lost: list[str] = []
    folders, links = [root], list[Path]()
    while folders or links:
        path = folders.pop() if folders else links.pop()
        try:
            about = path.stat()
            key = (about.st_dev, about.st_ino)
            if key in seen and (path.is_dir() or path.is_symlink()):
                continue
            seen.add(key)
            if key in above:
                lost.append(f"{path}: a link to a folder above")
            elif path.is_dir():
                for child in sorted(path.iterdir(), reverse=True):
                    (links if child.is_symlink() else folders).append(child)
            elif path.suffix.lower() in suffixes() and path.is_file():
                found.append(path)
            else:
                others[path.suffix.lower() or "without a suffix"] += 1
                _require_pictures(root, len(found), others.total())
        except OSError as error:  # a broken link, or a folder that we may not read
            lost.append(f"{path}: {error.strerror or error}")
    if others:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in others.most_common(8))
        if rest := others.total() - sum(n for _, n in others.most_common(8)):
            kinds += f", {rest:,} others"
        lost.append(f"files whose names are not those of pictures: {kinds}")
    return sorted(found), lost


def folder_state(root: Path) -> str:
    """A hash of the names, sizes and times of a folder's pictures. It doesn't read the pictures."""
    found = hashlib.sha1()
    for path in _files(root)[0]:
        with contextlib.suppress(OSError):  # it has just been deleted
            about = path.stat()
            found.update(repr((str(path), about.st_size, about.st_mtime_ns)).encode())
    return found.hexdigest()


def read_folder(
    root: Path,
    train: bool,
    size: int,
    channels: int,
    progress: Callable[[list[Path]], Iterable[Path]],
) -> Images:
    """Read the pictures below `root`, as `data.load` says."""
    import numpy as np
    import torch

    from ddpm_demo.media.convert import square
    from ddpm_demo.media.open import ImageError, open_image

    if root.is_file():
        hint = "; unpack it first" if root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") else ""
        raise DataError(f"{root} is a file; folder:PATH names a folder of pictures{hint}.")
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    files, skipped = _files(root)
    if len(files) >= SMALL:
        files = [p for p in files if held_out(p, root) != train]
    pictures = []
    for path in progress(files):
        try:
            image = square(open_image(path), size).convert("L" if channels == 1 else "RGB")
        except ImageError as error:
            skipped.append(f"{path}: {error}")
        else:
            pictures.append(np.asarray(image))
    if not pictures and train:  # by chance, there may be no held-out pictures
        found = f"none of its {len(files)} pictures can be read" if files else "it has none"
        found += f" ({'; '.join(skipped)})" * (bool(skipped) and not files)
        raise DataError(f"{root} should hold pictures, such as jpg, png or webp, but {found}.")
    pixels = torch.from_numpy(np.array(pictures, np.uint8).reshape(-1, size, size, channels))
    labels = torch.full((len(pictures),), NO_LABEL)
    return Images(
        pixels.permute(0, 3, 1, 2).contiguous(), labels, flip=True, skipped=tuple(skipped)
    )
