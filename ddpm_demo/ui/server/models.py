"""Loaded models, by name; those used last stay in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ddpm_demo.models.checkpoint import Checkpoint


class Models:
    """Models by name, loaded when asked for.

    Args:
        load: makes a model from its name.
        most: bytes of weights that are kept. The model used last stays even if it has more, and
            one that a run has begun with stays until the run ends.
        device: where new models go; a process of ZeroGPU begins with what the app has kept, on
            another device.
    """

    def __init__(
        self,
        load: Callable[[str], Checkpoint],
        most: int,
        device: Callable[[], torch.device] | None = None,
    ) -> None:
        self._load, self._most, self._device = load, most, device
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], Checkpoint] = {}  # the one used last comes last

    def __call__(self, name: str) -> Checkpoint:
        key = name, self._device().type if self._device else ""
        with self._lock:  # while loading, too: nobody loads the same model a second time
            checkpoint = self._kept.pop(key) if key in self._kept else self._load(name)
            self._kept[key] = checkpoint
            while len(self._kept) > 1 and sum(c.nbytes for c in self._kept.values()) > self._most:
                del self._kept[next(iter(self._kept))]
            return checkpoint
