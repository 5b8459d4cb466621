"""The usual experiments: the same run with one setting swapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from ddpm_demo.config import require
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.models.facts import Facts
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.generate import link

LAPLACE = "Laplace noise"
FEW = "Few-step model"


def _sampler(spec: RunSpec) -> RunSpec:
    other = "ddpm" if spec.sample.sampler == "ddim" else "ddim"
    return replace(spec, sample=spec.sample.but(sampler=other))


def _half(spec: RunSpec) -> RunSpec:
    return replace(spec, sample=spec.sample.but(steps=max(1, spec.sample.steps // 2)))


def _guidance(value: float) -> Callable[[RunSpec], RunSpec]:
    return lambda spec: replace(spec, sample=spec.sample.but(guidance=value))


def _brother(model: str) -> str | None:
    """The shipped model that was trained as this one, but with Laplace noise."""
    name = f"{model}-laplace"
    return name if name in available() else None


def _student(model: str) -> str | None:
    """The shipped model that was distilled from this one."""
    taught = ((name, facts(name).info.get("teacher") or {}) for name in available())
    return next((name for name, teacher in taught if teacher.get("name") == model), None)


def _by(find: Callable[[str], str | None]) -> Callable[[RunSpec], RunSpec]:
    """The same run by another model, with that model's own settings."""

    def swap(spec: RunSpec) -> RunSpec:
        name = find(spec.model)
        require(
            name is not None,
            "model of this swap",
            spec.model,
            "one that has such a model beside it",
        )
        asked, other = spec.sample, facts(str(name))
        own = other.best
        labels = asked.labels if other.classes else own.labels
        return RunSpec(str(name), own.but(n=asked.n, seed=asked.seed, labels=labels))

    return swap


SWAPS: Mapping[str, Callable[[RunSpec], RunSpec]] = {
    "DDIM, or DDPM if it was DDIM": _sampler,
    "Half of the steps": _half,
    "Guidance 1": _guidance(1),
    "Guidance 3": _guidance(3),
    "Guidance 8": _guidance(8),
    LAPLACE: _by(_brother),
    FEW: _by(_student),
}


def offered(model: Any) -> list[str]:
    """The swaps that a model can have. Only shipped models have some."""
    if model not in available():
        return []
    there = {LAPLACE: _brother(model), FEW: _student(model)}
    classes = facts(model).classes
    return [
        words
        for words in SWAPS
        if there.get(words, True) and (classes or not words.startswith("Guidance"))
    ]


def swapped(spec: RunSpec, model: Facts, words: str) -> list[Any]:
    """New values of the controls, as `link.read` returns them.

    Args:
        model: the run's model.
    """
    after = SWAPS[words](spec)
    given = after.to_query(model if after.model == spec.model else facts(after.model))
    return list(link.read(dict(parse_qsl(given))).controls)
