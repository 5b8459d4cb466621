"""Everything about a model but its weights. The page shows it before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ddpm_demo.config import DiffusionConfig, ModelConfig

KEY = "ddpm_demo"  # the key of our JSON in the metadata of safetensors files


@dataclass(frozen=True)
class Facts:
    """Everything about a model but its weights.

    Attributes:
        name: the model's name, as in `Checkpoint`.
        config: the configuration of the network.
        diffusion: the process that the network was trained for.
        info: what the trainer wrote about it, as in `Checkpoint`.
        parameters: how many parameters the network has.
    """

    name: str
    config: ModelConfig
    diffusion: DiffusionConfig
    info: dict[str, Any]
    parameters: int

    @property
    def classes(self) -> list[str]:
        """The names of the network's classes. The list is empty if it was trained without."""
        return list(self.info.get("classes", ())) if self.config.num_classes else []


def name_of(source: str) -> str:
    """A model's short name: the last part of a path, but the whole OWNER/NAME of a Hub repo."""
    path = PurePath(source)
    away = path.is_absolute() or source.startswith(("~", ".")) or len(path.parts) > 2
    return path.stem if away or path.suffix == ".safetensors" else source
