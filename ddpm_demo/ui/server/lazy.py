"""Handlers by name, so that the page is built before torch is imported.

A tab's layout says `called("ddpm_demo.ui.generate.handlers:how_long")`, and the module is imported
when a visitor's click first needs it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ddpm_demo.ui.server import runtime, settings

TICK = 0.2  # seconds between two looks: a visitor who leaves while torch loads is let go


def _found(path: str) -> Callable[..., Any]:
    if runtime.starting():  # torch is imported by one thread, and the others wait
        runtime.ready.wait()
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _named(handler: Callable[..., Any], path: str) -> Callable[..., Any]:
    handler.__name__ = path.rpartition(":")[2]
    if settings.ZERO:  # it looks for what needs a GPU when the app starts
        _found(path)
    return handler


def called(path: str) -> Callable[..., Any]:
    """A handler that returns its value.

    Args:
        path: as in "package.module:function".
    """

    def handler(*args: Any) -> Any:
        return _found(path)(*args)

    return _named(handler, path)


def streamed(path: str, loading: Any = None) -> Callable[..., Iterator[Any]]:
    """A handler that yields its values, and leaves all as it is where there are none.

    Args:
        path: as in "package.module:function".
        loading: yielded at once if torch and the first model are still being loaded.
    """

    def handler(*args: Any) -> Iterator[Any]:
        if loading is not None and runtime.starting():
            yield loading
            while not runtime.ready.wait(TICK):
                yield gr.skip()
        some = False
        with contextlib.closing(_found(path)(*args)) as values:
            for value in values:
                some = True
                yield value
        if not some:  # Gradio would empty every output
            yield gr.skip()

    return _named(handler, path)
