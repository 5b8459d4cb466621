"""Whose fine-tuning waits or runs. Each visitor has at most one."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

STILL = "Your fine-tuning is still running. Stop it before you start another."
WAITS = "Your fine-tuning is already waiting for its turn. Stop cancels it."


class Turns:
    """Visitors by their folders. Gradio's queue would let a second one of theirs wait as well."""

    def __init__(self) -> None:
        self._waits: dict[str, int] = {}
        self._runs: set[str] = set()
        self._lock, self._tickets = threading.Lock(), itertools.count(1)

    def ask(self, folder: str) -> int:
        """Give a ticket to begin with.

        Raises:
            ValueError: another one waits or runs.
        """
        with self._lock:
            if folder in self._runs or folder in self._waits:
                raise ValueError(STILL if folder in self._runs else WAITS)
            self._waits[folder] = next(self._tickets)
            return self._waits[folder]

    @contextlib.contextmanager
    def begun(self, folder: str, ticket: int) -> Iterator[bool]:
        """Take the turn for the length of the block. False if it was cancelled."""
        with self._lock:
            there = self._waits.get(folder) == ticket
            if there:
                self._runs.add(folder)
                del self._waits[folder]
        try:
            yield there
        finally:
            if there:
                self._runs.discard(folder)

    def leave(self, folder: str) -> bool:
        """Cancel a fine-tuning that waits. Returns True if there was one."""
        with self._lock:
            return self._waits.pop(folder, None) is not None
