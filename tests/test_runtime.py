"""Which models the app keeps in memory, and how its errors are said."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from ddpm_demo.diffusion import Denoiser
from ddpm_demo.inference.batching import BatchedDenoiser
from ddpm_demo.machine import devices
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.models import Models


@pytest.fixture
def size(tiny: Callable[..., Checkpoint]) -> int:
    """Bytes of a tiny model."""
    return sum(p.numel() * 4 for p in tiny().model.parameters())


def test_the_models_used_last_stay(tiny: Callable[..., Checkpoint], size: int) -> None:
    loads: list[str] = []
    kept = Models(lambda name: (loads.append(name), tiny())[1], 2 * size)
    first = kept("a")
    kept("b")
    assert kept("a") is first
    kept("c")  # no room for b
    assert kept("a") is first
    kept("b")
    assert loads == ["a", "b", "c", "b"]


def test_a_model_over_the_limit_stays_alone(tiny: Callable[..., Checkpoint], size: int) -> None:
    loads: list[str] = []
    kept = Models(lambda name: (loads.append(name), tiny())[1], size - 1)
    for name in "aabba":
        kept(name)
    assert loads == ["a", "b", "a"]


def test_visitors_at_once_load_a_model_once(tiny: Callable[..., Checkpoint], size: int) -> None:
    loads: list[str] = []
    go = threading.Barrier(8)

    def load(name: str) -> Checkpoint:
        loads.append(name)
        time.sleep(0.05)
        return tiny()

    kept = Models(load, size)

    def visit(_: int) -> Checkpoint:
        go.wait()
        return kept("a")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(visit, range(8))))) == 1
    assert loads == ["a"]


def test_a_model_that_fails_is_tried_again(tiny: Callable[..., Checkpoint], size: int) -> None:
    answers = [CheckpointError("cut short"), tiny()]

    def load(name: str) -> Checkpoint:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = Models(load, size)
    with pytest.raises(CheckpointError):
        kept("a")
    assert kept("a") is kept("a")


def test_errors_that_are_ours_to_explain_are_sentences() -> None:
    def fails(error: Exception) -> Callable[[], Iterator[None]]:
        def handler() -> Iterator[None]:
            yield
            raise error

        return friendly(handler)

    said = gr.Error("said & done", print_exception=False)
    for error, message in (
        (ValueError("a < b"), "a &lt; b"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "The GPU has too little memory left"),
        (said, "said & done"),
    ):
        with pytest.raises(gr.Error) as caught:
            list(friendly(fails(error))())  # twice, as with what a GPU's process runs
        assert caught.value.message.startswith(message)
        assert not caught.value.print_exception
    with pytest.raises(KeyError):
        list(fails(KeyError("a bug"))())


def test_bfloat16_is_used_where_it_is_asked_for_and_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, pays in ((False, True), (True, False), (True, True)):
        monkeypatch.setattr(devices, "bf16_pays", lambda _device, pays=pays: pays)
        monkeypatch.delenv("DDPM_DEMO_BF16", raising=False)
        if asked:
            monkeypatch.setenv("DDPM_DEMO_BF16", "1")
        assert runtime.bf16() is (asked and pays)


def test_runs_share_passes_but_on_zerogpu(
    tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There each run has a process of its own, forked: it would wait for a thread that isn't."""
    kinds = []
    for zero in (False, True):
        monkeypatch.setattr(settings, "ZERO", zero)
        kinds.append(type(runtime.denoiser(tiny().model, tiny().diffusion)))
    assert kinds == [BatchedDenoiser, Denoiser]


def test_on_zerogpu_only_its_processes_have_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(runtime.device().type)
        return SimpleNamespace(nbytes=0)

    monkeypatch.setattr(settings, "ZERO", True)
    kept = Models(load, 10**9, runtime.device)
    kept("a")
    assert runtime.has_gpu()
    monkeypatch.setattr(runtime, "_app", os.getpid() + 1)  # as in a process that was forked
    kept("a")
    kept("a")
    assert loaded == ["cpu", "cuda"]


def test_the_queue_has_what_the_app_sets() -> None:
    """It is Gradio's own affair: a release that renames it would ignore what the app sets."""
    queue = gr.Blocks()._queue
    assert queue.sleep_when_free > 0
    assert queue.max_size is None
