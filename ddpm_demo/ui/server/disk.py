"""What the app keeps on disk: uploads, files to download, and what visitors fine-tuned.

All of it lies in one folder of the system's temporary folder and goes when the app ends.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_demo.ui.server import settings

if TYPE_CHECKING:
    import gradio as gr

TUNING = "tuning-"  # begins the names of visitors' folders
MOST = 4 * 10**9  # bytes of all visitors together, if they are strangers
UPLOAD_AGE = 60.0  # seconds: whoever is given an upload takes what it needs from it at once
PART_AGE = 600.0  # the same for an upload that never came to its end
TUNING_AGE = 7 * 3600.0  # and for a fine-tuning of strangers, which they can have for six hours
EVERY = 15.0  # seconds between two looks


@functools.cache
def folder() -> Path:
    """The app's own, made when asked for the first time; it is deleted when the app ends."""
    made, owner = Path(tempfile.mkdtemp(prefix="ddpm_demo-")), os.getpid()

    def end() -> None:
        if os.getpid() == owner:  # not a worker that was forked off
            delete()

    atexit.register(end)
    return made


def delete() -> None:
    """Delete the app's folder, also if a thread is just writing a file there."""
    for _ in range(3):
        shutil.rmtree(folder(), ignore_errors=True)


def own_temporary_folder() -> None:
    """Have all temporary files of this process lie in our folder, Gradio's uploads among them.

    Call it before Gradio and torch are imported: each makes a folder of its own at once.
    """
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder())
    os.environ["GRADIO_TEMP_DIR"] = str(uploads())


def uploads() -> Path:
    """Where Gradio keeps what visitors upload."""
    return folder() / "gradio"


def used() -> int:
    """Bytes of all files."""
    total = 0
    for path in folder().rglob("*"):
        with suppress(OSError):  # deleted meanwhile
            if path.is_file():
                total += path.stat().st_size
    return total


def require_room() -> None:
    """Refuse to keep more files of strangers than `MOST`.

    Raises:
        OSError: with one sentence.
    """
    if settings.strangers and used() > MOST:
        raise OSError("This server has no room for more files just now: try again in an hour.")


def sweep(demo: gr.Blocks) -> None:
    """Delete the uploads that are old enough, and what broken ones and others left behind."""
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
                    path.rmdir()  # fails if there is something in it
                elif path.is_file() and age(path) > PART_AGE:
                    path.unlink()

    for tuning in folder().glob(f"{TUNING}*") if settings.strangers else ():
        with suppress(OSError):  # deleted meanwhile
            if all(age(path) > TUNING_AGE for path in (tuning, *tuning.rglob("*"))):
                shutil.rmtree(tuning)


def tuning_folder() -> str:
    """A new one, for a visitor.

    Raises:
        OSError: there is no room.
    """
    require_room()
    return tempfile.mkdtemp(prefix=TUNING, dir=folder())


def keep_swept(demo: gr.Blocks) -> None:
    """Sweep for ever."""
    while True:
        time.sleep(EVERY)
        sweep(demo)
