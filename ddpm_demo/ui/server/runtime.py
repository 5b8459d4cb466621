"""What the tabs share: loaded models, the device, and errors as people should see them."""

from __future__ import annotations

import contextlib
import functools
import html
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import torch

from ddpm_demo.config import SampleConfig, require
from ddpm_demo.devices import bf16_pays, pick
from ddpm_demo.diffusion.denoiser import Denoiser
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.timing import measure
from ddpm_demo.media import images
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.prepared import Prepared

try:  # ZeroGPU: a GPU for as long as a decorated handler runs
    from spaces import GPU as GPU
except ImportError:

    def GPU(fn: Any = None, **_options: Any) -> Any:
        """Elsewhere the decorator does nothing."""
        return fn if callable(fn) else lambda f: f


ZERO = bool(os.environ.get("SPACES_ZERO_GPU"))
strangers = "SPACE_ID" in os.environ  # use the app: not only its host; `app.main` may set it
closing = threading.Event()  # the server is being stopped
CLOSING = "The server is being stopped. What has come so far stays on this page."
RUN_MINUTES = "DDPM_DEMO_RUN_MINUTES"  # of the environment: of a run in Generate,
LANE_MINUTES = "DDPM_DEMO_LANE_MINUTES"  # and of fine-tuning and measuring
MODEL_BYTES = 15 * 10**8  # of loaded models together; the paper's network has up to 0.9 GB
RUNS = 8  # of visitors at the same time; the next ones wait in Gradio's queue
# The steps of all runs share forward passes, all on one thread: Gradio resumes a run on whatever
# thread is free, and each thread that runs a network would bring up OpenMP threads of its own. On
# ZeroGPU each run has a process of its own, and shares nothing.
batcher = Batcher(cores=torch.get_num_threads())
denoiser: Callable[..., Denoiser] = functools.partial(BatchedDenoiser, batcher)
if ZERO:
    denoiser = Denoiser

F = TypeVar("F", bound=Callable[..., Iterator[Any]])


_picked = functools.cache(pick)
_app = os.getpid()


def device() -> torch.device:
    """The one that all models of the app are on.

    On ZeroGPU only the processes in which `GPU` functions run have one besides the CPU. What these
    functions get and give goes through a pickle: names and settings in, pictures on the CPU out.
    """
    if ZERO:
        return torch.device("cpu" if os.getpid() == _app else "cuda")
    return _picked()


def has_gpu() -> bool:
    """Whether networks run on more than a CPU."""
    return ZERO or device().type != "cpu"


def bf16() -> bool:
    """Whether networks run in bfloat16: where it is faster, and DDPM_DEMO_BF16 asks for it."""
    return bool(os.environ.get("DDPM_DEMO_BF16")) and bf16_pays(device())


class Models:
    """Models by name, loaded when asked for; those used last stay in memory.

    Args:
        load: makes a model from its name.
        most: bytes of weights that are kept. The model used last stays even if it has more, and
            one that a run has begun with stays until the run ends.
    """

    def __init__(self, load: Callable[[str], Checkpoint], most: int) -> None:
        self._load, self._most = load, most
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], Checkpoint] = {}  # the one used last comes last

    def __call__(self, name: str) -> Checkpoint:
        key = name, device().type  # a process of ZeroGPU begins with what the app has kept
        with self._lock:  # while loading, too: nobody loads the same model a second time
            checkpoint = self._kept.pop(key) if key in self._kept else self._load(name)
            self._kept[key] = checkpoint
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > self._most:
                del self._kept[next(iter(self._kept))]
            return checkpoint


def _size(checkpoint: Checkpoint) -> int:
    """Bytes of the weights, and of what layers have made of them."""
    model = checkpoint.model
    made = sum(m.prepared_bytes for m in model.modules() if isinstance(m, Prepared))
    return made + sum(weight.nbytes for weight in model.state_dict().values())


model = Models(lambda name: load_checkpoint(name, device()), MODEL_BYTES)


def most_seconds(variable: str, minutes: float) -> float:
    """What a run may take: so many minutes, or those that the environment's variable says.

    Raises:
        ValueError: that is no number.
    """
    words = os.environ.get(variable)
    try:
        number = minutes if words is None else float(words)
    except ValueError:
        number = math.nan
    require(number >= 0, variable, words, "a number of minutes")
    return 60 * number


_timing = threading.Lock()
_seconds: dict[str, Mapping[int, float]] = {}


@GPU(duration=20)
def _measure(name: str) -> Mapping[int, float]:
    return measure(model(name), denoiser, bf16=bf16())


def seconds(name: str) -> Mapping[int, float]:
    """How long a call of a model takes here, by the number of pictures; see `budget.measure`.

    It is measured when asked for the first time.
    """
    if name not in _seconds:
        with _timing:  # one after the other: two at once would slow each other down
            if name not in _seconds:
                _seconds[name] = _measure(name)
    return _seconds[name]


def bar(words: str, done: float) -> str:
    """HTML of a line with a progress bar below; `words` are HTML, `done` is from 0 to 1."""
    return f'{words}<progress max="1" value="{done:.3f}" aria-label="Progress"></progress>'


def friendly(handler: F) -> F:
    """Show the errors that are ours to explain as one sentence; the rest stay bugs.

    When the server is stopped, whoever waits for the handler is told.
    """

    @functools.wraps(handler)
    def run(*args: Any) -> Iterator[Any]:
        try:
            with contextlib.closing(handler(*args)) as values:  # type: ignore[type-var]
                while not closing.is_set():
                    try:
                        value = next(values)
                    except StopIteration:
                        return
                    yield value
        except gr.Error:  # a sentence already
            raise
        except (ValueError, FloatingPointError, OSError) as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        except torch.OutOfMemoryError:
            said = "The GPU has too little memory left for this: ask for less, or try again later."
            raise gr.Error(said, print_exception=False) from None
        raise gr.Error(CLOSING, print_exception=False)

    return run  # type: ignore[return-value]


@GPU
@friendly
def draw(source: str, page: SampleConfig) -> Iterator[tuple[int, Any]]:
    """The steps of a page, and with the last one its (n, h, w, c) uint8 pictures.

    Args:
        source: what `model` takes.
    """
    for step in generate(model(source), page, bf16=bf16(), denoiser=denoiser):
        last = step.index == step.total
        yield step.index, np.ascontiguousarray(images.to_uint8(step.x_t)) if last else None
