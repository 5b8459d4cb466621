"""Turns errors into one sentence for the visitor."""

from __future__ import annotations

import contextlib
import functools
import html
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from ddpm_demo.ui.server import settings

CLOSING = "The server is being stopped. What has come so far stays on this page."
REFUSED = "This can't be done"  # the title of a sentence on a bad value
NO_MEMORY = "The GPU has too little memory left for this: ask for less, or try again later."

F = TypeVar("F", bound=Callable[..., Iterator[Any]])


def friendly(handler: F) -> F:
    """Show expected errors of a handler as one sentence. All others are bugs, and stay as they are.

    When the server stops, visitors who wait for the handler are told so.
    """

    @functools.wraps(handler)
    def run(*args: Any) -> Iterator[Any]:
        try:
            with contextlib.closing(handler(*args)) as values:  # type: ignore[type-var]
                while not settings.closing.is_set():
                    try:
                        value = next(values)
                    except StopIteration:
                        return
                    yield value
        except gr.Error:  # it is a sentence already
            raise
        except (ValueError, FloatingPointError, OSError) as error:
            said = html.escape(str(error))
            raise gr.Error(said, title=REFUSED, print_exception=False) from error
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise gr.Error(NO_MEMORY, print_exception=False) from None
        raise gr.Error(CLOSING, print_exception=False)

    return run  # type: ignore[return-value]


def _out_of_memory(error: Exception) -> bool:
    """True if the GPU's memory is full. If torch isn't loaded, no GPU was used."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
