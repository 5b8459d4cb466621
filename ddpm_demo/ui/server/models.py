"""Keeps loaded models in memory, those used last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ddpm_demo.models.checkpoint import Checkpoint


class Models:
    """Models by name. Each is loaded when it is first asked for.

    Args:
        load: loads a model by its name.
        most: the most bytes of weights to keep. The model used last stays even if it is larger. A
            run keeps its own model until it ends.
        device: returns the device of new models. A process of ZeroGPU starts with the app's models,
            but on another device.
    """

    def __init__(
        self,
        load: Callable[[str], Checkpoint],
        most: int,
        device: Callable[[], torch.device] | None = None,
    ) -> None:
        self._load, self._most, self._device = load, most, device
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], Checkpoint] = {}  # the model used last comes last

    def __call__(self, name: str) -> Checkpoint:
        key = name, self._device().type if self._device else ""
        with self._lock:  # hold it while loading, too, so that no model is loaded twice
            checkpoint = self._kept.pop(key) if key in self._kept else self._load(name)
            self._kept[key] = checkpoint
            while len(self._kept) > 1 and sum(c.nbytes for c in self._kept.values()) > self._most:
                del self._kept[next(iter(self._kept))]
            return checkpoint
