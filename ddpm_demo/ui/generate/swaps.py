"""The usual experiments: the next run, with one setting swapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from ddpm_demo.inference.spec import RunSpec, defaults
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.generate import link

LAPLACE = "mnist-laplace"


def _sampler(spec: RunSpec) -> RunSpec:
    other = "ddpm" if spec.sample.sampler == "ddim" else "ddim"
    return replace(spec, sample=spec.sample.but(sampler=other))


def _half(spec: RunSpec) -> RunSpec:
    return replace(spec, sample=spec.sample.but(steps=max(1, spec.sample.steps // 2)))


def _guidance(value: float) -> Callable[[RunSpec], RunSpec]:
    return lambda spec: replace(spec, sample=spec.sample.but(guidance=value))


def _laplace(spec: RunSpec) -> RunSpec:
    own = defaults(facts(LAPLACE))
    return RunSpec(LAPLACE, own.but(n=spec.sample.n, seed=spec.sample.seed))


SWAPS: Mapping[str, Callable[[RunSpec], RunSpec]] = {
    "DDIM, or DDPM if it was DDIM": _sampler,
    "Half of the steps": _half,
    "Guidance 1": _guidance(1),
    "Guidance 3": _guidance(3),
    "Guidance 8": _guidance(8),
    "Laplace noise": _laplace,
}


def offered() -> list[str]:
    """The swaps for which there is a model."""
    return [words for words in SWAPS if words != "Laplace noise" or LAPLACE in available()]


def swapped(spec: RunSpec, model: Any, words: str) -> list[Any]:
    """New values of the controls that a link gives values to, see `link.read`.

    Args:
        model: the one of the run.
    """
    after = SWAPS[words](spec)
    given = after.to_query(model if after.model == spec.model else facts(after.model))
    return list(link.read(dict(parse_qsl(given))).controls)
