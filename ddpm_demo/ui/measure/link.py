"""What a link holds of Measure: the model, the metrics, and how the model is sampled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ddpm_demo.config import one_of
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.ui.components import controls, links
from ddpm_demo.ui.components.controls import first_model
from ddpm_demo.ui.components.links import Read, checked, listed, whole
from ddpm_demo.ui.measure.asked import ALL, IMAGES_MOST, N_MOST, metrics

SAMPLED = ("model", "sampler", "steps", "class", "guidance")
FIELDS = {  # the fields of `Asked`, each with its name in a link
    "wanted": "metrics",
    "n": "n",
    "sampler": "sampler",
    "steps": "steps",
    "labels": "class",
    "guidance": "guidance",
    "against": "against",
    "images": "images",
    "terms": "terms",
}
NAMES = ("model", *FIELDS.values())


def read(given: dict[str, str]) -> Read:
    """New values for the model, for the link's own model, and for the fields of `Asked`."""
    first = first_model() or ""
    asked = {name: given[name] for name in SAMPLED if name in given}
    spec, problems = RunSpec.from_query(urlencode(asked), listed, first)
    model, config = listed(spec.model), spec.sample
    checks: dict[str, Callable[[str, str], Any]] = {
        "metrics": _metrics,
        "n": lambda name, text: whole(name, text, 1, N_MOST),
        "images": lambda name, text: whole(name, text, 1, IMAGES_MOST),
        "terms": lambda name, text: whole(name, text, 2, model.diffusion.T),
        "against": lambda name, text: _against(name, text, model.classes),
        "sampler": lambda *_: config.sampler,
        "steps": lambda *_: config.steps,
        "class": lambda *_: controls.class_options(model, config.labels)["value"],
        "guidance": lambda *_: min(config.guidance, controls.GUIDANCE_MOST),
    }
    values, wrong = checked(given, FIELDS, checks)
    problems += wrong
    shown = {field: gr.update(value=value) for field, value in values.items()}
    if spec.model != first or "labels" in values:
        shown["labels"] = gr.update(**controls.class_options(model, config.labels))
    now = [shown.get(field, gr.skip()) for field in FIELDS]
    chosen = gr.skip() if spec.model == first else gr.update(value=spec.model)
    pairs = {FIELDS[field]: links.words(value) for field, value in values.items()}
    query = urlencode(({"model": spec.model} if spec.model != first else {}) | pairs)
    return Read([chosen, {"model": spec.model, "values": values}, *now], {}, query, problems)


query_of = partial(links.query_of, FIELDS)


def _metrics(name: str, text: str) -> list[str]:
    wanted = list(dict.fromkeys(text.split(",")))
    for word in wanted:
        one_of(name, word, tuple(metrics()))
    return wanted


def _against(name: str, text: str, classes: list[str]) -> str:
    one_of(name, text, (ALL, *classes))
    return text
