"""What a link holds of Generate: the run that its controls describe, and what is shown of it."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ddpm_demo.config import SampleConfig, number, require
from ddpm_demo.inference.spec import RunSpec, query_names
from ddpm_demo.models.facts import Facts
from ddpm_demo.models.zoo import facts
from ddpm_demo.ui.components import controls
from ddpm_demo.ui.components.controls import MOST, about, first_model, most_pictures
from ddpm_demo.ui.components.links import Read, listed, whole
from ddpm_demo.ui.components.player import PANES

SHOWN = ("t", "panes", "picture")  # of the player
NAMES = (*query_names(), *SHOWN)


def query_of(spec: RunSpec, model: Facts) -> str:
    """The address's query for a run. It is empty for the run that the app starts with."""
    query = spec.to_query(model)
    return "" if query == urlencode({"model": first_model()}) else query


def changes_of(text: Any) -> tuple[str, ...]:
    """The changes in the box, separated by semicolons.

    Raises:
        ValueError: it is not a text.
    """
    require(isinstance(text, str), "changes", text, "a text such as z=0:400; eps=1.02:300")
    return tuple(filter(None, (part.strip() for part in text.split(";"))))


def read(given: dict[str, str]) -> Read:
    """New values for the model, its `shown`, seed, eta and changes, and the model's name again."""
    first = first_model() or ""
    spec, problems = RunSpec.from_query(urlencode(given), listed, first, page=SHOWN)
    model = facts(spec.model)
    config, more = _fitting(spec.sample, model)
    page, wrong = _page(given, model, config)
    name = gr.skip() if spec.model == first else gr.update(value=spec.model)
    values = [name, *shown(model, config, config.n), config.seed, config.eta]
    values += [";".join(spec.interventions), spec.model]
    query = query_of(dataclasses.replace(spec, sample=config), model)
    return Read(values, page, query, [*problems, *more, *wrong])


def shown(model: Facts, config: SampleConfig, n: int) -> list[Any]:
    """What changes with the model: its line, sampler, steps, spacing, variance, clipping, start,
    classes, guidance, and the number of pictures."""
    T, most, own = model.diffusion.T, most_pictures(model), model.best
    fewer = min(n, max(1, most // 4)) if most < MOST else n
    return [
        about(model),
        config.sampler,
        gr.update(maximum=config.start or own.start or T, value=config.steps),
        config.spacing,
        config.variance,
        config.clip,
        gr.update(maximum=T, value=config.start or T),
        gr.update(**controls.class_options(model, config.labels)),
        gr.update(value=config.guidance, visible=bool(model.classes)),
        gr.update(maximum=most, value=fewer),
    ]


def _fitting(config: SampleConfig, model: Facts) -> tuple[SampleConfig, list[str]]:
    """The run as far as the controls can show it, and a sentence on what they can't."""
    own, problems = model.best, []
    limits = {"n": (1, most_pictures(model)), "guidance": (0, controls.GUIDANCE_MOST)}
    for name, (low, high) in limits.items():
        try:
            number(name, getattr(config, name), low, high)
        except ValueError as error:
            problems.append(str(error))
            config = dataclasses.replace(config, **{name: getattr(own, name)})
    if config.timesteps not in (None, own.timesteps):
        problems.append("A list of timesteps can't be set on this page.")
        config = dataclasses.replace(config, timesteps=own.timesteps, steps=own.steps)
    return config, problems


def _page(
    given: dict[str, str], model: Facts, config: SampleConfig
) -> tuple[dict[str, Any], list[str]]:
    """What the player shows: t, its panes, and one picture alone."""
    page: dict[str, Any] = {}
    problems = []
    limits = {"t": (0, model.diffusion.T), "picture": (1, config.n)}
    for name in filter(given.__contains__, SHOWN):
        text = given[name]
        try:
            if name == "panes":
                panes = text.split(",")
                require(set(panes) <= set(PANES), name, text, f"some of {', '.join(PANES)}")
                page[name] = ",".join(panes)
            else:
                page[name] = whole(name, text, *limits[name])
        except ValueError as error:
            problems.append(str(error))
    return page, problems
