"""The networks of the app: their device, the models in memory, and how long a call takes.

Importing this module is quick, as it imports no torch: the page is built without. `start` brings
torch and the first model up behind the page; whoever calls a function here earlier waits for that.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm_demo.config import SampleConfig
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.models import Models
from ddpm_demo.ui.server.settings import GPU

if TYPE_CHECKING:
    import torch

    from ddpm_demo.diffusion.denoiser import Denoiser
    from ddpm_demo.inference.batching import Batcher
    from ddpm_demo.models.checkpoint import Checkpoint

MODEL_BYTES = 15 * 10**8  # of loaded models together; the paper's network has up to 0.9 GB

_app = os.getpid()
_making, _timing = threading.Lock(), threading.Lock()
_made: dict[str, Any] = {}
_seconds: dict[str, Mapping[int, float]] = {}
ready = threading.Event()  # torch and the first model are there
_started = threading.Event()


def start(first: str | None = None) -> None:
    """Import torch, set it up for a server, load the first model and see how fast it is here.

    Raises:
        ValueError: the first model can't be loaded.
    """
    _started.set()
    try:
        import torch

        from ddpm_demo.devices import keep_memory

        keep_memory()
        batcher()
        torch.set_num_threads(1)  # but for the thread that runs the networks
        if first:
            model(first)
    finally:
        ready.set()
    if first and not settings.ZERO:  # there, GPUs are for visitors
        seconds(first)


def starting() -> bool:
    """Whether `start` runs, and torch or the first model is still to come."""
    return _started.is_set() and not ready.is_set()


def batcher() -> Batcher:
    """What all runs share: their steps are forward passes of one thread.

    Gradio resumes a run on whatever thread is free, and each thread that runs a network would bring
    up OpenMP threads of its own.
    """
    import torch

    from ddpm_demo.inference.batching import Batcher

    with _making:
        if "batcher" not in _made:
            _made["batcher"] = Batcher(cores=torch.get_num_threads())
        made: Batcher = _made["batcher"]
        return made


def denoiser(*args: Any, **options: Any) -> Denoiser:
    """What the samplers of the app ask. On ZeroGPU each run has a process, and shares nothing."""
    if settings.ZERO:
        from ddpm_demo.diffusion.denoiser import Denoiser

        return Denoiser(*args, **options)
    from ddpm_demo.inference.batching import BatchedDenoiser

    return BatchedDenoiser(batcher(), *args, **options)


@functools.cache
def _picked() -> torch.device:
    from ddpm_demo.devices import pick

    return pick()


def device() -> torch.device:
    """The one that all models of the app are on.

    On ZeroGPU only the processes in which `GPU` functions run have one besides the CPU. What these
    functions get and give goes through a pickle: names and settings in, pictures on the CPU out.
    """
    if settings.ZERO:
        import torch

        return torch.device("cpu" if os.getpid() == _app else "cuda")
    return _picked()


def has_gpu() -> bool:
    """Whether networks run on more than a CPU."""
    return settings.ZERO or device().type != "cpu"


def bf16() -> bool:
    """Whether networks run in bfloat16: where it is faster, and DDPM_DEMO_BF16 asks for it."""
    from ddpm_demo.devices import bf16_pays

    return bool(os.environ.get("DDPM_DEMO_BF16")) and bf16_pays(device())


def _load(name: str) -> Checkpoint:
    from ddpm_demo.models.load import load_checkpoint

    return load_checkpoint(name, device())


model = Models(_load, MODEL_BYTES, lambda: device())


@GPU(duration=20)
def _measure(name: str) -> Mapping[int, float]:
    from ddpm_demo.inference.timing import measure

    return measure(model(name), denoiser, bf16=bf16())


def seconds(name: str) -> Mapping[int, float]:
    """How long a call of a model takes here, by the number of pictures; see `timing.measure`.

    It is measured when asked for the first time.
    """
    if name not in _seconds:
        with _timing:  # one after the other: two at once would slow each other down
            if name not in _seconds:
                _seconds[name] = _measure(name)
    return _seconds[name]


@GPU
@friendly
def draw(source: str, page: SampleConfig) -> Iterator[tuple[int, Any]]:
    """The steps of a page, and with the last one its (n, h, w, c) uint8 pictures.

    Args:
        source: what `model` takes.
    """
    from ddpm_demo.inference.generate import generate
    from ddpm_demo.media import convert

    for step in generate(model(source), page, bf16=bf16(), denoiser=denoiser):
        last = step.index == step.total
        yield step.index, np.ascontiguousarray(convert.to_uint8(step.x_t)) if last else None
