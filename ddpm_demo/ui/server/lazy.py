"""Refers to handlers by name, so that the page can be built before torch is imported.

A tab's layout says `called("ddpm_demo.ui.generate.handlers:how_long")`. The module is imported when
a visitor's click first needs it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ddpm_demo.ui.server import runtime, settings

TICK = 0.2  # seconds between two checks if a visitor has left while torch loads


def _found(path: str) -> Callable[..., Any]:
    if runtime.starting():  # one thread imports torch, and the others wait
        runtime.ready.wait()
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _named(handler: Callable[..., Any], path: str) -> Callable[..., Any]:
    handler.__name__ = path.rpartition(":")[2]
    if settings.ZERO:  # ZeroGPU looks for GPU functions when the app starts
        _found(path)
    return handler


def called(path: str) -> Callable[..., Any]:
    """Make a handler that calls the function at `path` and returns its value.

    Args:
        path: such as "package.module:function".
    """

    def handler(*args: Any) -> Any:
        return _found(path)(*args)

    return _named(handler, path)


def streamed(path: str, loading: Any = None) -> Callable[..., Iterator[Any]]:
    """Make a handler that yields the values of the generator at `path`.

    If it yields none, the page stays as it is.

    Args:
        path: such as "package.module:function".
        loading: yielded at once while torch and the first model are still being loaded.
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
        if not some:  # otherwise Gradio would empty every output
            yield gr.skip()

    return _named(handler, path)
