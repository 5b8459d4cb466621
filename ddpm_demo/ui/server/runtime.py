"""The networks of the app: their device, the models in memory, and how long a call takes.

Importing this module doesn't import torch, so the page can be built first. `start` then loads torch
and the first model in the background. Handlers that need them earlier wait.
"""

from __future__ import annotations

import functools
import os
import statistics
import threading
import time
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

    from ddpm_demo.diffusion import Denoiser, Step
    from ddpm_demo.inference.batching import Batcher
    from ddpm_demo.models.checkpoint import Checkpoint

MODEL_BYTES = 15 * 10**8  # the most bytes of all loaded models; the paper's network takes 0.9 GB

_app = os.getpid()
_making, _timing = threading.Lock(), threading.Lock()
_made: dict[str, Any] = {}
_seconds: dict[str, Mapping[int, float]] = {}
ready = threading.Event()  # set once torch and the first model are loaded
_started = threading.Event()


def start(first: str | None = None) -> None:
    """Import torch, set it up for a server, load the first model and measure its speed.

    Raises:
        ValueError: the first model can't be loaded.
    """
    _started.set()
    try:
        import torch

        from ddpm_demo.machine.devices import keep_memory

        keep_memory()
        batcher()
        torch.set_num_threads(1)  # all threads but the one that runs the networks
        if first:
            model(first)
    finally:
        ready.set()
    if first and not settings.ZERO:  # on ZeroGPU, the GPU is only for visitors
        seconds(first)


def starting() -> bool:
    """True while `start` loads torch or the first model."""
    return _started.is_set() and not ready.is_set()


def batcher() -> Batcher:
    """The batcher that all runs share. One thread runs all their forward passes.

    Gradio resumes a run on any free thread. Each thread that runs a network would start its own
    OpenMP threads.
    """
    import torch

    from ddpm_demo.inference.batching import Batcher

    with _making:
        if "batcher" not in _made:
            _made["batcher"] = Batcher(cores=torch.get_num_threads())
        made: Batcher = _made["batcher"]
        return made


def denoiser(*args: Any, **options: Any) -> Denoiser:
    """Make the denoiser of a run. On ZeroGPU, each run has its own process and shares nothing."""
    if settings.ZERO:
        from ddpm_demo.diffusion import Denoiser

        return Denoiser(*args, **options)
    from ddpm_demo.inference.batching import BatchedDenoiser

    return BatchedDenoiser(batcher(), *args, **options)


@functools.cache
def _picked() -> torch.device:
    from ddpm_demo.machine.devices import pick

    return pick()


def device() -> torch.device:
    """The device of all models of the app.

    On ZeroGPU, only the processes that run `GPU` functions have a GPU. Arguments and results of
    these functions are pickled, so they are only names, settings, and pictures on the CPU.
    """
    if settings.ZERO:
        import torch

        return torch.device("cpu" if os.getpid() == _app else "cuda")
    return _picked()


def has_gpu() -> bool:
    """True if networks run on something faster than a CPU."""
    return settings.ZERO or device().type != "cpu"


def bf16() -> bool:
    """True if networks run in bfloat16: DDPM_DEMO_BF16 asks for it, and it is faster here."""
    from ddpm_demo.machine.devices import bf16_pays

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
    """Seconds of one call of a model here, by the number of pictures (see `timing.measure`).

    The first call for a model measures them.
    """
    if name not in _seconds:
        with _timing:  # one at a time: two at once would slow each other down
            if name not in _seconds:
                _seconds[name] = _measure(name)
    return _seconds[name]


def timed(name: str, config: SampleConfig, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps of a run. How long they take corrects `seconds`, which may have been measured while
    something else had the cores. On ZeroGPU it corrects nothing: each run is a process of its own.
    """
    from ddpm_demo.config import SAMPLERS
    from ddpm_demo.inference import timing

    took = []
    begin = time.perf_counter()
    for step in steps:
        took.append(time.perf_counter() - begin)
        yield step
        begin = time.perf_counter()
    if len(took) > config.steps and name in _seconds:  # the first one is the noise
        calls = SAMPLERS[config.sampler].calls(config.steps) / config.steps
        call = statistics.median(took[1:]) / calls
        _seconds[name] = timing.sooner(_seconds[name], timing.pictures(config), call)


@GPU
@friendly
def draw(source: str, page: SampleConfig) -> Iterator[tuple[int, Any]]:
    """Yield the number of each step of a run, and with the last its (n, h, w, c) uint8 pictures.

    Args:
        source: the name of the model.
        page: the run.
    """
    from ddpm_demo.inference.generate import generate
    from ddpm_demo.media import convert

    for step in generate(model(source), page, bf16=bf16(), denoiser=denoiser):
        last = step.index == step.total
        yield step.index, np.ascontiguousarray(convert.to_uint8(step.x_t)) if last else None
