"""What a visitor asks for in Fine-tune, and what the page and its handlers both know."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddpm_demo.models.zoo import available, models_folder

ALL = "all of the data"
UNITS = ("steps", "epochs")
PANELS = ("Before: the base model", "Now, from the same noise")
CPU = "Training runs on this computer's CPU. Keep it short: 40 steps take a minute or two."
GPU = "Training runs on this computer's GPU."
STEPS, BATCH = 40, 16  # usual on a CPU, as `training.finetune` says
LR, GRIDS = 2e-4, 8
NOTHING_TO_CONTINUE = "Nothing to continue yet. Press Start first."
NOTHING_TO_COMPARE = "Nothing to compare yet. Press Start first."
NOTHING_YET = "There is no model of yours yet. Press Start first."


@dataclass(frozen=True)
class Asked:
    """The values that a page sent, not yet checked; or the controls of these values."""

    dataset: Any
    only: Any
    length: Any
    unit: Any
    batch: Any
    lr: Any
    grids: Any
    device: Any

    def all(self) -> list[Any]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]


def recorded() -> list[str]:
    """The shipped fine-tuned models that have a film of their training."""
    folder = models_folder()
    return [name for name in available() if (folder / name / "morph.gif").is_file()]
