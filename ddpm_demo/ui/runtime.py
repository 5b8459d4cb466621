"""What the tabs share: loaded models, the device, and errors as people should see them."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from ddpm_demo.batching import BatchedDenoiser, Batcher
from ddpm_demo.checkpoint import Checkpoint, load_checkpoint
from ddpm_demo.denoiser import Denoiser
from ddpm_demo.devices import pick

try:  # ZeroGPU: a GPU for as long as a decorated handler runs
    from spaces import GPU as GPU
except ImportError:

    def GPU(fn: Any = None, **_options: Any) -> Any:
        """Elsewhere the decorator does nothing."""
        return fn if callable(fn) else lambda f: f


RUNS = 8  # of visitors at the same time; the next ones wait in Gradio's queue
# The steps of all runs share forward passes, all on one thread: Gradio resumes a run on whatever
# thread is free, and each thread that runs a network would bring up OpenMP threads of its own. On
# ZeroGPU each run has a process of its own, and shares nothing.
denoiser: Callable[..., Denoiser] = functools.partial(BatchedDenoiser, Batcher())
if os.environ.get("SPACES_ZERO_GPU"):
    denoiser = Denoiser

F = TypeVar("F", bound=Callable[..., Iterator[Any]])


@functools.cache
def device() -> Any:
    """The one that all models of the app are on."""
    return pick()


@functools.lru_cache(maxsize=8)
def model(name: str) -> Checkpoint:
    """A shipped model, loaded once."""
    return load_checkpoint(name, device())


def friendly(handler: F) -> F:
    """Show the errors that are ours to explain as one sentence; the rest stay bugs."""

    @functools.wraps(handler)
    def run(*args: Any) -> Iterator[Any]:
        try:
            yield from handler(*args)
        except (ValueError, FloatingPointError, OSError) as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return run  # type: ignore[return-value]
