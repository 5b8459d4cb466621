"""What the tabs with long work share: one lane for all visitors, and their data."""

from __future__ import annotations

import functools
import html
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from ddpm_demo import data
from ddpm_demo.config import number, require
from ddpm_demo.ui.components.bar import bar
from ddpm_demo.ui.server import disk, runtime

if TYPE_CHECKING:
    from ddpm_demo.data import Images

SIZE_MOST = 64  # whole data sets are only resized for models up to this size
LANE: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1}
EVERY = 0.3  # seconds between two messages
BREATH = 0.1  # seconds between two moments in which Stop takes effect

R = TypeVar("R")
Y = TypeVar("Y")
_one = threading.Lock()  # two downloads at once would write to the same file


@functools.lru_cache(maxsize=3)
def _load(dataset: str, size: int, channels: int, train: bool, _state: str) -> Images:
    return data.load(dataset, size=size, channels=channels, train=train)


def data_of(
    dataset: Any, size: int, channels: int, *, train: bool = True, local: bool = True
) -> Images:
    """Load pictures to train on or to test with, fitted to a model.

    Args:
        local: True allows folders on this disk.

    Raises:
        ValueError: the pictures can't be loaded, visitors may not use them, or they would fill the
            memory.
    """
    dataset = str(dataset)
    folder = data.is_folder(dataset)
    require(local or not folder, "data", dataset, data.named(""), "visitors have no folders here")
    if not folder:  # anybody may have uploaded the model, with any size
        number("size of the model", size, 8, SIZE_MOST, whole=True)
    return _load(dataset, size, channels, train, data.state(dataset))


def loading(dataset: Any, *shape: int, **options: bool) -> Generator[str, None, Images]:
    """Do `data_of`, and yield lines to show meanwhile, such as how much was downloaded.

    A visitor can leave at any time. The download goes on for the next visitor.
    """
    found: Future[Images] = Future()

    def load() -> None:
        try:
            with _one:
                found.set_result(data_of(dataset, *shape, **options))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=load, daemon=True).start()
    while not wait([found], EVERY).done:
        come, size = data.arrived(dataset)
        if 0 < come < size:
            words = f"Downloading {dataset}: {come / 1e6:.0f} of {size / 1e6:.0f} MB"
            yield bar(words, come / size)
        else:
            yield "Loading the pictures…"
    if lost := found.result().skipped:
        more = f", and {len(lost) - 1:,} more" * (len(lost) > 1)
        gr.Warning(html.escape(f"Left out: {lost[-1]}{more}."))
    return found.result()


def shown(steps: Generator[str, None, R], show: Callable[[str], Y]) -> Generator[Y, None, R]:
    """Turn each line of `loading` into a value that a handler can yield."""
    try:
        while True:
            yield show(next(steps))
    except StopIteration as end:
        return end.value


def sparing(values: Iterator[Y], idle: Y) -> Iterator[Y]:
    """Pass on all values but `idle`, which comes ten times a second at most.

    Gradio can stop a handler only where it yields. But a page that is sent something at each of a
    thousand steps a second has no time left for a click on Stop.
    """
    sent = 0.0
    for value in values:
        if value is not idle or time.monotonic() - sent > BREATH:
            sent = time.monotonic()
            yield value


def give_way() -> Iterator[None]:
    """On a CPU, let visitors who wait for pictures go first. Ends once nobody waits."""
    while runtime.device().type == "cpu" and runtime.batcher().busy:
        time.sleep(0.05)
        yield


def own_folder(folder: str | None) -> str:
    """A visitor's own folder, which is deleted with the session.

    Raises:
        gr.Error: the folder can't be made.
    """
    try:
        return folder or disk.tuning_folder()
    except OSError as error:
        raise gr.Error(html.escape(error.strerror or str(error)), print_exception=False) from None


def existing(folder: str | None) -> Path:
    """The folder that `own_folder` made.

    Raises:
        gr.Error: there is no such folder.
    """
    if not folder or not Path(folder).is_dir():
        raise gr.Error("There is no fine-tuning of yours: press Start.", print_exception=False)
    return Path(folder)


def forget(folder: str | None) -> None:
    """Delete a visitor's folder."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
