"""What the entry "More models from the Hub" does: looks a model up, and downloads it."""

from __future__ import annotations

import functools
import html
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from tqdm.auto import tqdm

from ddpm_demo.config import one_of, require
from ddpm_demo.machine.files import expand
from ddpm_demo.models import hub
from ddpm_demo.models.listed import LISTED
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.errors import friendly

EVERY = 0.3  # seconds between two messages
FIRST = next(iter(LISTED))

describe = functools.lru_cache(maxsize=64)(hub.describe)


def find(repo: Any, any_repo: bool) -> tuple[str, str]:
    """The name of a model in the list, and the source that `load_checkpoint` takes.

    Args:
        repo: a visitor's words: the name of a repo or, with `any_repo`, a folder or a file.

    Raises:
        ValueError: it is not allowed here.
    """
    if not any_repo:
        one_of("repo", repo, tuple(LISTED))
    allowed = "the name of a repo such as google/ddpm-cifar10-32, or of a folder"
    require(isinstance(repo, str) and 0 < len(repo.strip()) <= 1000, "repo", repo, allowed)
    if repo in LISTED:
        return repo, repo
    path = expand(repo.strip())
    if path.exists():
        return f"{path.resolve().name} (this disk)", str(path.resolve())
    require(hub.is_repo(repo.strip()), "repo", repo, allowed)
    return repo.strip(), repo.strip()


def about(repo: Any, any_repo: bool) -> str:
    """One line on a model: where it is, or its size and licence, or why it can't be had.

    Asks the Hub only if the model isn't on this disk.
    """
    try:
        _, source = find(repo, any_repo)
        if Path(source).is_absolute():
            said = f"{source} is on this disk."
        elif hub.cached(source):
            said = f"{source} is on this disk already."
        else:
            said = f"{describe(source)}."
            if describe(source).size > hub.limit():
                said = (
                    f"{said[:-1]}: over the limit of {hub.limit() / 1e6:,.0f} MB, which "
                    f"{hub.LIMIT_VARIABLE} in the app's environment sets."
                )
    except ValueError as error:
        return html.escape(str(error))
    if source in LISTED:
        said += f" {LISTED[source].rpartition(', ')[0]}."
    return html.escape(said)


class Download:
    """A download in its own thread.

    Attributes:
        bytes: how many have come.
        error: why it ended early, if it did.
    """

    def __init__(self, repo: str) -> None:
        self.bytes, self.error = 0, None  # type: int, Exception | None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(repo,), daemon=True)
        self._thread.start()

    def _run(self, repo: str) -> None:
        try:
            hub.download(repo, tqdm_class=_bars(self._told))
        except Exception as error:
            self.error = error

    def _told(self, so_far: float) -> None:
        if self._stopped:
            raise InterruptedError("stopped")
        self.bytes = max(self.bytes, int(so_far))

    def running(self, patience: float) -> bool:
        """Wait so many seconds, or until it ends. Returns True if it still runs."""
        self._thread.join(patience)
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it after the current piece. What has come stays on the disk, for the next time."""
        self._stopped = True


def _bars(told: Callable[[float], None]) -> type[tqdm[Any]]:
    """Progress bars that show nothing, but tell how many bytes have come."""

    class Bar(hub.Silent):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts = options.get("unit") == "B"
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.counts:
                told(self.n)

    return Bar


@friendly
def get(any_repo: bool, repo: Any) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield lines to show. The last comes with the model's name and its source."""
    name, source = find(repo, any_repo)
    yield about(repo, any_repo), None
    if not Path(source).is_absolute() and not hub.cached(source):
        size = describe(source).size
        started = time.monotonic()
        download = Download(source)
        try:
            while download.running(EVERY):
                seconds = time.monotonic() - started
                yield _progress(source, download.bytes, size, seconds), None
        finally:
            download.stop()
        if download.error:
            raise download.error
    runtime.model(source)
    yield f"{html.escape(name)} is chosen.", (name, source)


def _progress(name: str, come: int, size: int, seconds: float) -> str:
    come = min(come, size)
    left = f", {seconds * (size - come) / come:.0f} s left" if come else ""
    return (
        f"{html.escape(name)}: {come / 1e6:,.0f} of {size / 1e6:,.0f} MB{left}"
        f'<progress max="{size}" value="{come}" aria-label="Download"></progress>'
    )


def offer() -> Any:
    """When the page starts, open the entry if there is a GPU and the first repo can be had."""
    if not runtime.has_gpu():
        return gr.skip(), gr.skip()
    said = about(FIRST, False)
    try:
        there = hub.cached(FIRST) or describe(FIRST)
    except ValueError:
        there = None
    return (gr.update(open=True), said) if there else (gr.skip(), gr.skip())
