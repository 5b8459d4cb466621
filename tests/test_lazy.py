"""Handlers by name: what they yield, and what becomes of a page when they yield nothing."""

import sys
from collections.abc import Iterator
from types import ModuleType

import gradio as gr
import pytest

from ddpm_demo.ui.server.lazy import called, streamed


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("made_up")
    monkeypatch.setitem(sys.modules, "made_up", module)
    return module


def test_what_yields_nothing_changes_nothing(module: ModuleType) -> None:
    module.some = lambda n: iter_of(n, [])  # type: ignore[attr-defined]
    assert list(streamed("made_up:some")(2)) == [0, 1]
    assert list(streamed("made_up:some")(0)) == [gr.skip()]


def test_who_leaves_ends_the_work(module: ModuleType) -> None:
    ended: list[bool] = []
    module.some = lambda n: iter_of(n, ended)  # type: ignore[attr-defined]
    values = streamed("made_up:some")(9)
    next(iter(values))
    values.close()  # type: ignore[attr-defined]
    assert ended == [True]
    module.one = lambda n: n + 1  # type: ignore[attr-defined]
    assert called("made_up:one")(1) == 2


def iter_of(n: int, ended: list[bool]) -> Iterator[int]:
    try:
        yield from range(n)
    finally:
        ended.append(True)
