"""The values of the controls of all experiments, in one list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddpm_demo.config import one_of, settings
from ddpm_demo.experiments import EXPERIMENTS, Experiment
from ddpm_demo.ui.components.uploads import uploaded


def names(row: Experiment) -> list[str]:
    """The settings of an experiment, each of which has a control."""
    return list(settings(row.settings))


def uploads(row: Experiment) -> set[str]:
    """The settings of an experiment that take an upload."""
    return {name for name, (_, about) in settings(row.settings).items() if about.upload}


def asked(name: Any, values: Sequence[Any]) -> tuple[Experiment, Any]:
    """Find an experiment by its name, and take its settings from the values of all controls.

    Raises:
        ValueError: there is no such experiment, or a value is not allowed.
    """
    one_of("experiment", name, tuple(EXPERIMENTS))
    start = 0
    for row in EXPERIMENTS.values():
        mine = dict(zip(names(row), values[start:], strict=False))
        for upload in uploads(row) & mine.keys():
            mine[upload] = uploaded(mine[upload]) or ""
        if row.name == name:
            break
        start += len(names(row))
    return row, row.ask(mine)
