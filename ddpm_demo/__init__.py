"""See how a diffusion model works: a real DDPM, live (Ho, Jain & Abbeel 2020).

    import ddpm_demo as dd

    model = dd.load("mnist")
    model.sample(n=16).save("digits.png")

The names below are imported when they are first used, so that `import ddpm_demo` is quick.
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
