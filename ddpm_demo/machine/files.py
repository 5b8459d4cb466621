"""Expand paths that people type, and write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def expand(path: str | Path) -> Path:
    """Replace `~`, `~name` or `$NAME` at the beginning of a path by what it stands for.

    A shell does this, but not in `--out=~/x`, in quotes, or in a file of variables.

    Raises:
        ValueError: there is no such home folder or variable.
    """
    path = Path(path)
    first = path.parts[0] if path.parts else ""
    if first.startswith("$") and not os.path.lexists(first):
        path = Path(os.path.expandvars(first), *path.parts[1:])
        if path.parts[0].startswith("$"):
            raise ValueError(f"{path} can't be found, as the environment has no {first}.")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path} can't be found, as there is no home folder for its {first}."
        ) from None


def home() -> Path:
    """The user's home folder.

    Raises:
        ValueError: the home folder is not known.
    """
    if os.name == "posix" and os.environ.get("HOME") == "":  # Python would take the root's folder
        raise ValueError("No home folder is known.")
    return expand("~")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file, then rename it. A crash or a full disk leaves the old file intact.

    Raises:
        OSError: one sentence says which file was not written, and why.
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
    """Check, before long work begins, that files can be written in a folder.

    Args:
        folder: it need not exist yet.
        option: the command-line option that names another folder, if there is one.

    Raises:
        ValueError: nothing can be written there.
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
    """Raise `ValueError` if no temporary file can be written; torch needs some."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        said = "No temporary file can be written; set TMPDIR to a folder where that is allowed."
        raise ValueError(said) from None


def cache_folder(name: str, instead: str) -> Path:
    """The path of this program's folder `name` in the user's cache.

    Args:
        instead: the option or variable that names another folder, for the error message.

    Raises:
        ValueError: the user has no home folder.
    """
    try:
        return home() / ".cache" / "ddpm_demo" / name
    except ValueError:
        raise ValueError(
            f"No home folder is known, so there is no place for {name}: name one ({instead})."
        ) from None
