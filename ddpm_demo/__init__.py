"""See how a diffusion model works: a real DDPM, live (Ho, Jain & Abbeel 2020).

    import ddpm_demo as dd

    model = dd.load("mnist")
    model.sample(n=16).save("digits.png")

What stands here is looked up when it is first used, so that the import costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_demo.api import (
        Film,
        Model,
        Pictures,
        Schedule,
        Step,
        evaluate,
        film,
        finetune,
        grid,
        load,
        noise,
        train,
    )

__all__ = [
    "Film",
    "Model",
    "Pictures",
    "Schedule",
    "Step",
    "evaluate",
    "film",
    "finetune",
    "grid",
    "load",
    "noise",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ddpm_demo' has no attribute {name!r}")
    value = getattr(importlib.import_module("ddpm_demo.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
