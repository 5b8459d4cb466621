"""The shipped models: where they are, and their facts, read without torch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ddpm_demo.config import DiffusionConfig, ModelConfig, from_dict
from ddpm_demo.machine.files import expand
from ddpm_demo.models.facts import KEY, Facts

VARIABLE = "DDPM_DEMO_MODELS"  # an environment variable


def models_folder() -> Path:
    """The folder of the shipped models. It need not exist.

    The environment variable DDPM_DEMO_MODELS names it. Otherwise it is `checkpoints/` beside the
    code, or, for an installed program, in the working folder. With hub:OWNER, it holds that owner's
    models from the Hub.

    Raises:
        CheckpointError: the owner's models can't be downloaded.
    """
    given = os.environ.get(VARIABLE, "")
    if given.startswith("hub:"):
        from ddpm_demo.models.owner import PREFIX, folder_of

        return folder_of(given.removeprefix(PREFIX))
    if given:
        return expand(given)
    beside, here = Path(__file__).resolve().parents[2] / "checkpoints", Path("checkpoints")
    return here.absolute() if here.is_dir() and not beside.is_dir() else beside


def available() -> list[str]:
    """Names of the shipped models."""
    return sorted({p.parent.name for p in models_folder().glob("*/model*.safetensors*")})


def how_to_get_models() -> str:
    """Tell somebody without shipped models where to get some."""
    return (
        f"There are no shipped models in {models_folder()}: they are the folder `checkpoints` of "
        f"the project's repository, and --models, or {VARIABLE} in the environment, says where it "
        "is, or hub:OWNER for those of an owner on the Hub; one model of the Hub needs none, as in "
        "--model google/ddpm-cifar10-32."
    )


def facts(name: str) -> Facts:
    """Read the facts of a shipped model from the headers of its files.

    Raises:
        OSError, ValueError: there is no such model, or its files are broken.
    """
    about: dict[str, Any] = {}
    parameters = 0
    for path in sorted((models_folder() / name).glob("model*.safetensors")):
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})[KEY])
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        parameters += sum(map(math.prod, shapes))
    if not about:
        raise FileNotFoundError(f"There is no shipped model {name}.")
    return Facts(
        name,
        from_dict(ModelConfig, about["model"]),
        from_dict(DiffusionConfig, about["diffusion"]),
        dict(about.get("info") or {}),
        parameters,
    )
