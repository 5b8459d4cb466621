"""Keeps a command running if its output can't show a letter, is closed, or the disk is full."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LostError(Exception):
    """Part of the standard output was lost. The message says why; it is empty for a closed pipe."""


class _Stream(io.FileIO):
    """A pipe or file that accepts everything, even if the pipe is closed or the disk is full.

    Attributes:
        error: the first error of a write, if there was one.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


@contextmanager
def lasting() -> Iterator[None]:
    """Inside this context, an error of the standard output can't stop the work.

    Raises:
        LostError: part of the standard output was lost. It is raised at the end.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_lasting, before)
    try:
        yield
    finally:
        mine = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream, own in zip(mine, before, strict=True):
            stream.flush()
            if own is None:
                stream.close()
    require(mine[0])


def require(stream: TextIO | None = None) -> None:
    """Raise `LostError` if part of the standard output was lost."""
    raw = getattr(getattr(stream or sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Stream) and raw.error:
        closed = isinstance(raw.error, BrokenPipeError)  # such as `| head`
        said = f"Not all that was said could be written: {raw.error.strerror}."
        raise LostError("" if closed else said) from raw.error


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before the program began
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="replace")  # a letter that the screen can't show becomes a "?"
    try:
        number = stream.fileno()
    except OSError:  # it is in memory
        return stream
    if stream.isatty():
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
    lines = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=lines)
