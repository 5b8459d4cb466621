"""What a model says of itself. No torch is needed: the page needs no more to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ddpm_demo.config import DiffusionConfig, ModelConfig

KEY = "ddpm_demo"  # of our JSON in the metadata of safetensors files


@dataclass(frozen=True)
class Facts:
    """All of a model but its weights.

    Attributes:
        name: as in `Checkpoint`.
        config: of the network.
        diffusion: the process that it was trained for.
        info: what the trainer says of it; see `Checkpoint`.
        parameters: how many numbers the network has.
    """

    name: str
    config: ModelConfig
    diffusion: DiffusionConfig
    info: dict[str, Any]
    parameters: int

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the network knows; none if it was trained without."""
        return list(self.info.get("classes", ())) if self.config.num_classes else []


def name_of(source: str) -> str:
    """A model's own name: of a path its last part; OWNER/NAME of the Hub stays whole."""
    path = PurePath(source)
    away = path.is_absolute() or source.startswith(("~", ".")) or len(path.parts) > 2
    return path.stem if away or path.suffix == ".safetensors" else source
