"""The app's files on disk: uploads, downloads, and the models that visitors fine-tuned.

All of them are in one temporary folder. It is deleted when the app ends.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_demo.ui.server import settings

if TYPE_CHECKING:
    import gradio as gr

TUNING = "tuning-"  # the names of visitors' folders begin like this
MOST = 4 * 10**9  # the most bytes of all visitors together, if they are strangers
UPLOAD_AGE = 60.0  # seconds until an upload is deleted; handlers read it at once
PART_AGE = 600.0  # seconds until an unfinished upload is deleted
TUNING_AGE = 7 * 3600.0  # the same for a stranger's fine-tuning, which may be used for six hours
EVERY = 15.0  # seconds between two sweeps


@functools.cache
def _place() -> Path:
    """Where the app's own folder is. It is known before it is made, in case a signal comes then."""
    return Path(tempfile.gettempdir(), f"ddpm_demo-{secrets.token_hex(8)}")


@functools.cache
def folder() -> Path:
    """The app's own folder. The first call makes it, and it is deleted when the app ends."""
    made, owner = _place(), os.getpid()
    made.mkdir(mode=0o700)

    def end() -> None:
        if os.getpid() == owner:  # forked workers must not delete it
            delete()

    atexit.register(end)
    return made


def delete() -> None:
    """Delete the app's folder, even while a thread writes a file there."""
    for _ in range(3):
        shutil.rmtree(_place(), ignore_errors=True)


def own_temporary_folder() -> None:
    """Put all temporary files of this process into our folder, including Gradio's uploads.

    Call this before Gradio and torch are imported, because each makes its own folder at once.
    """
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder())
    os.environ["GRADIO_TEMP_DIR"] = str(uploads())


def uploads() -> Path:
    """The folder in which Gradio keeps uploads."""
    return folder() / "gradio"


def used() -> int:
    """The bytes of all files."""
    total = 0
    for path in folder().rglob("*"):
        with suppress(OSError):  # it has just been deleted
            if path.is_file():
                total += path.stat().st_size
    return total


def require_room() -> None:
    """Refuse to keep more than `MOST` bytes of files for strangers.

    Raises:
        OSError: there is no room. The message is one sentence.
    """
    if settings.strangers and used() > MOST:
        raise OSError("This server has no room for more files just now: try again in an hour.")


def sweep(demo: gr.Blocks) -> None:
    """Delete old uploads, unfinished uploads, empty folders, and old fine-tunings of strangers."""
    now = time.time()
    shown = {str(f) for block in demo.blocks.values() for f in getattr(block, "keep_in_cache", ())}

    def age(path: Path) -> float:
        return now - path.lstat().st_ctime

    for name in list(demo.upload_file_set):
        path = Path(name)
        with suppress(OSError):
            if str(path) not in shown and age(path) > UPLOAD_AGE:
                path.unlink()
        if not path.exists():
            demo.upload_file_set.discard(name)
    with suppress(OSError):
        for path in uploads().iterdir():
            with suppress(OSError):
                if path.is_dir() and age(path) > UPLOAD_AGE:
                    path.rmdir()  # fails unless it is empty
                elif path.is_file() and age(path) > PART_AGE:
                    path.unlink()

    for tuning in folder().glob(f"{TUNING}*") if settings.strangers else ():
        with suppress(OSError):  # it has just been deleted
            if all(age(path) > TUNING_AGE for path in (tuning, *tuning.rglob("*"))):
                shutil.rmtree(tuning)


def tuning_folder() -> str:
    """Make a new folder for a visitor's fine-tuning.

    Raises:
        OSError: there is no room.
    """
    require_room()
    return tempfile.mkdtemp(prefix=TUNING, dir=folder())


def keep_swept(demo: gr.Blocks) -> None:
    """Sweep again and again, forever."""
    while True:
        time.sleep(EVERY)
        sweep(demo)
