"""Paths as people write them, and files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def expand(path: str | Path) -> Path:
    """The path with its `~` or `~name` replaced by that home folder.

    Raises:
        ValueError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path} can't be found, as there is no home folder for its ~.") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the name, then rename: a kill or a full disk leaves what was there before.

    Raises:
        OSError: with one sentence that says which file was not written, and why.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(f"{path} was not written: {error.strerror}.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise OSError(f"{path} was not written: {error.strerror}.") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def require_writable(folder: Path, option: str = "") -> None:
    """Find out before long work whether files can be made in a folder; it may not be there yet.

    Args:
        option: the one that names another folder, if there is one.

    Raises:
        ValueError: they can't, in one sentence.
    """
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason, other = error.strerror or str(error), f" with {option}" if option else ""
        raise ValueError(
            f"Nothing can be written in {folder}: {reason}. Name another folder{other}."
        ) from None


def require_temporary_folder() -> None:
    """Raise `ValueError` if no temporary file can be written: torch needs a place for some."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        said = "No temporary file can be written; set TMPDIR to a folder where that is allowed."
        raise ValueError(said) from None


def cache_folder(name: str, instead: str) -> Path:
    """A folder of this program in the user's cache; it is looked up only when it is needed.

    Args:
        instead: the option or variable that names another place.

    Raises:
        ValueError: the user has no home folder.
    """
    try:
        return Path.home() / ".cache" / "ddpm_demo" / name
    except RuntimeError:
        raise ValueError(
            f"No home folder is known, so there is no place for {name}: name one ({instead})."
        ) from None
