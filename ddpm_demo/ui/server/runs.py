"""Keeps the last runs of each visitor, so that the page can show a pixel's numbers or go on.

Only the visitor's page knows the name of its run. A forgotten run can be made again from its seed
and settings.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpm_demo.config import require

if TYPE_CHECKING:
    from ddpm_demo.inference.record import Record

VISITOR_BYTES = 96 * 2**20  # the most bytes of one visitor's runs
ALL_BYTES = 512 * 2**20  # the most bytes of all runs
MINUTES = 20.0  # a run that nobody uses is forgotten after these minutes
GONE = {"gone": True}


@dataclass
class Kept:
    """A run: its record, its visitor, and when it was last used."""

    record: Record
    visitor: str
    used: float = field(default_factory=time.monotonic)


class Runs:
    """Runs by name. Those used last stay."""

    def __init__(self, visitor_bytes: int = VISITOR_BYTES, all_bytes: int = ALL_BYTES) -> None:
        self._limits = visitor_bytes, all_bytes
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}  # the run used last comes last

    def begin(self, visitor: str, record: Record) -> str:
        """Keep a visitor's run, which may have only just begun. Returns its name."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = Kept(record, visitor)
            self._forget(visitor, name)
        return name

    def get(self, name: Any) -> Record | None:
        with self._lock:
            kept = self._kept.pop(name, None) if isinstance(name, str) else None
            if kept is None:
                return None
            kept.used = time.monotonic()
            self._kept[name] = kept
            self._forget(kept.visitor, name)
            return kept.record

    def leave(self, visitor: str) -> None:
        """Forget the runs of a visitor who has left."""
        with self._lock:
            mine = [name for name, kept in self._kept.items() if kept.visitor == visitor]
            for name in mine:
                del self._kept[name]

    def _forget(self, visitor: str, but: str) -> None:
        """Forget old runs, and then the oldest until the limits hold. The run `but` stays."""
        since = time.monotonic() - 60 * MINUTES
        for name in [name for name, kept in self._kept.items() if kept.used < since]:
            del self._kept[name]
        for whose, most in zip((visitor, None), self._limits, strict=True):
            names = [n for n, k in self._kept.items() if whose in (None, k.visitor)]
            size = sum(self._kept[name].record.nbytes for name in names)
            for name in names:
                if size <= most or name == but:
                    break
                size -= self._kept.pop(name).record.nbytes


runs = Runs()


def new_visitor() -> str:
    """A new name for a page. Its runs are kept under this name."""
    return secrets.token_urlsafe(8)


def pixels(asked: Any) -> dict[str, Any]:
    """Reachable by anyone who can reach the page: one update of one picture, as it was computed.

    Args:
        asked: {"run": its name, "step": the step before the update, "picture": a number from 0}.

    Returns:
        {"names", "coefficients", "values": base64 of float32 [terms + 1][c][h][w]}, where the last
        tensor is the next x_t. Or {"gone": true} if the step isn't kept. Or {"error": a sentence}.
    """
    try:
        require(isinstance(asked, dict), "request", "…", "an object")
        step, picture = asked.get("step"), asked.get("picture")
        for name, value in (("step", step), ("picture", picture)):
            require(type(value) is int and value >= 0, name, value, "a whole number from 0")
    except ValueError as problem:
        return {"error": str(problem)}
    record = runs.get(asked.get("run"))
    line = record and record.line(step, picture)
    if not line:
        return GONE
    tensors = [*(term.tensor for term in line.terms), line.after]
    raw = b"".join(t.float().contiguous().numpy().tobytes() for t in tensors)
    return {
        "names": [term.name for term in line.terms],
        "coefficients": [term.coefficient for term in line.terms],
        "values": base64.b64encode(raw).decode(),
    }
