"""The last runs of each visitor, so that a pixel can be asked for and a run gone on with.

A run is found by a name that only its page knows. What is forgotten can be made again from the
run's seed and settings.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpm_demo.config.setting import require

if TYPE_CHECKING:
    from ddpm_demo.inference.record import Record

VISITOR_BYTES = 96 * 2**20  # of the runs of one visitor,
ALL_BYTES = 512 * 2**20  # and of all of them
MINUTES = 20.0  # after which a run that nobody asked for is forgotten
GONE = {"gone": True}


@dataclass
class Kept:
    """A run: what it has computed, whose it is, and when it was asked for last."""

    record: Record
    visitor: str
    used: float = field(default_factory=time.monotonic)


class Runs:
    """Runs by name; those used last stay."""

    def __init__(self, visitor_bytes: int = VISITOR_BYTES, all_bytes: int = ALL_BYTES) -> None:
        self._limits = visitor_bytes, all_bytes
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}  # the one used last comes last

    def begin(self, visitor: str, record: Record) -> str:
        """Keep a run of a visitor, while it goes on and after. Returns its name."""
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
        """The visitor is gone, and with it the runs."""
        with self._lock:
            mine = [name for name, kept in self._kept.items() if kept.visitor == visitor]
            for name in mine:
                del self._kept[name]

    def _forget(self, visitor: str, but: str) -> None:
        """Drop old runs, and then the oldest until the limits hold. A run in use stays."""
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
    """A name for a page, under which its runs are kept."""
    return secrets.token_urlsafe(8)


def pixels(asked: Any) -> dict[str, Any]:
    """Reachable by anyone who can reach the page: one update of one picture, as it was computed.

    Args:
        asked: {"run": its name, "step": from which it goes, "picture": a number from 0}.

    Returns:
        {"names", "coefficients", "values": base64 of float32 [terms + 1][c][h][w]}, of which the
        last is the next x_t; or {"gone": true} where that isn't kept; or {"error": a sentence}.
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
