"""Fixtures that several test files share: tiny networks with random weights, and checkpoints."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # another worker uses the other core
    os.environ["OMP_NUM_THREADS"] = "1"  # also holds for programs that tests start

import torch
from torch import nn

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.nn.unet import UNet

# The same examples on every machine and every day.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=200)
hypothesis.settings.load_profile("fixed")

N = TypeVar("N", bound=nn.Module)
TINY: dict[str, Any] = {
    "size": 8,
    "channels": 1,
    "width": 8,
    "multipliers": (1, 2),
    "attention": (4,),
    "time_dim": 16,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run browser tests last. They are sensitive to time, and other tests would slow them down."""
    items.sort(key=lambda item: "e2e" in item.keywords)


@pytest.fixture
def filled() -> Callable[..., N]:
    """Fills a network with random weights from its own generator.

    In a new network, the last layer of every block is zero, which would hide most errors.
    """

    def fill(net: N, seed: int = 0) -> N:
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in net.parameters():
                fan_in = p[0].numel() if p.ndim > 1 else 16
                p.copy_(torch.randn(p.shape, generator=g) / math.sqrt(fan_in))
                if p.ndim == 1:
                    p += 0.5
        return net.eval()

    return fill


@pytest.fixture
def tiny(filled: Callable[..., UNet]) -> Callable[..., Checkpoint]:
    """Makes a checkpoint of a tiny network. By default, it has 8 x 8 pixels and T = 20."""

    def make(T: int = 20, schedule: str = "cosine", seed: int = 0, **changes: Any) -> Checkpoint:
        process = {k: changes.pop(k) for k in ("noise", "predict") if k in changes}
        net = filled(UNet(ModelConfig(**(TINY | changes))), seed)
        names = [f"kind {i}" for i in range(net.config.num_classes)]
        info = {"dataset": "none", "classes": names, "images": 123}
        return Checkpoint(net, DiffusionConfig(T, schedule, **process), info, "tiny")

    return make


@pytest.fixture
def busy() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Inside `with busy():`, somebody waits for pictures of the app."""
    from ddpm_demo.inference.batching import Visitor
    from ddpm_demo.ui.server import runtime

    go = threading.Event()

    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        assert go.wait(60)
        return x

    network.config = ModelConfig()  # type: ignore[attr-defined]

    @contextmanager
    def wait() -> Iterator[None]:
        go.clear()
        with ThreadPoolExecutor(1) as pool:
            x = torch.zeros(1, 1, 8, 8)
            pictures = pool.submit(runtime.batcher().run, Visitor(), network, x, torch.zeros(1))
            while not runtime.batcher().busy:
                time.sleep(0.001)
            try:
                yield
            finally:
                go.set()
            pictures.result(60)

    yield wait
    go.set()


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Checkpoint]) -> Path:
    """Two shipped models for the test: "tiny", and "classy" with three classes."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("DDPM_DEMO_MODELS", str(folder))
    for name, classes in (("tiny", 0), ("classy", 3)):
        save_checkpoint(folder / name, tiny(num_classes=classes))
    return folder


@pytest.fixture
def unet(filled: Callable[..., N]) -> Callable[..., N]:
    """Makes a tiny UNet2DModel of diffusers, with changes."""
    from diffusers import UNet2DModel
    from folders import TINY

    return lambda **changes: filled(UNet2DModel(**(TINY | changes)))


@pytest.fixture
def folder(tmp_path: Path, unet: Callable[..., Any]) -> Path:
    """The folder of a tiny diffusers pipeline."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"
