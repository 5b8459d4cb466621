"""What a link holds of Fine-tune: the base, the class, and how long it is trained.

A link has no folders and no devices, because these belong to this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ddpm_demo.config import one_of, require
from ddpm_demo.inference.spec import shortened
from ddpm_demo.ui.components import links
from ddpm_demo.ui.components.controls import first_model
from ddpm_demo.ui.components.links import Read, checked, listed, whole
from ddpm_demo.ui.finetune.asked import ALL, BATCH, GRIDS, LR, STEPS, UNITS

FIELDS = {  # the fields of `Asked`, each with its name in a link
    "only": "class",
    "length": "length",
    "unit": "unit",
    "batch": "batch",
    "lr": "lr",
    "grids": "grids",
}
NAMES = ("model", *FIELDS.values())
USUAL: dict[str, Any] = {"length": STEPS, "unit": "steps", "batch": BATCH, "lr": LR, "grids": GRIDS}


def read(given: dict[str, str]) -> Read:
    """New values for the base, for the link's own base, and for the fields above."""
    first, problems = first_model() or "", []
    model = listed(first)
    if "model" in given:
        try:
            model = listed(given["model"])
        except (ValueError, OSError):
            problems.append(f"There is no model {shortened(given['model'])!r} here.")
    checks: dict[str, Callable[[str, str], Any]] = {
        "class": lambda name, text: _one(name, text, (ALL, *model.classes)),
        "unit": lambda name, text: _one(name, text, UNITS),
        "length": _above_0,
        "batch": lambda name, text: whole(name, text, 1, 10**6),
        "lr": _above_0,
        "grids": lambda name, text: whole(name, text, 1, 40),
    }
    values, wrong = checked(given, FIELDS, checks)
    problems += wrong
    other = model.name != first
    shown = {field: gr.update(value=value) for field, value in values.items()}
    if other:
        shown["only"] = gr.update(**classes(model.classes, values.get("only")))
    now = [shown.get(field, gr.skip()) for field in FIELDS]
    chosen = gr.update(value=model.name) if other else gr.skip()
    pairs = {FIELDS[field]: value for field, value in values.items()}
    query = urlencode(({"model": model.name} if other else {}) | pairs)
    return Read([chosen, {"model": model.name, "values": values}, *now], {}, query, problems)


query_of = partial(links.query_of, FIELDS)


def classes(names: list[str], only: str | None = None) -> dict[str, Any]:
    """Options of the list of classes for a base."""
    return {"choices": [ALL, *names], "value": only or usual_class(names)}


def usual_class(names: list[str]) -> str:
    """The class that the tab begins with."""
    return "ship" if "ship" in names else names[0] if names else ALL


def _one(name: str, text: str, allowed: tuple[str, ...]) -> str:
    one_of(name, shortened(text), allowed)
    return text


def _above_0(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(0 < value < 10**6, name, shortened(text), "a number above 0")
    return int(value) if value == int(value) else value
