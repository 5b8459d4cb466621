"""Layouts name their handlers, which are imported later: the names must be right."""

import importlib
import re
from pathlib import Path

import pytest

from ddpm_demo import ui

FOLDER = Path(ui.__file__).parent
TABS = sorted(path.parent.name for path in FOLDER.glob("*/tab.py"))


@pytest.mark.parametrize("tab", TABS)
def test_the_handlers_that_a_layout_names_are_there(tab: str) -> None:
    layout = importlib.import_module(f"ddpm_demo.ui.{tab}.tab")
    source = Path(str(layout.__file__)).read_text(encoding="utf-8")
    named = re.findall(r'\(f"\{(\w+)\}:(\w+)"', source)
    assert named
    for module, function in named:
        assert callable(getattr(importlib.import_module(getattr(layout, module)), function))
