"""What is said of the shipped models without torch, against the models once they are loaded."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.components.controls import about


@pytest.mark.parametrize("name", available())
def test_the_facts_are_those_of_the_loaded_model(name: str) -> None:
    assert facts(name) == load_checkpoint(name).facts


def test_one_that_is_not_there(zoo: Path) -> None:
    with pytest.raises(OSError, match="There is no shipped model mnist"):
        facts("mnist")
    assert facts("classy").classes == load_checkpoint("classy").classes


def test_no_torch_is_needed() -> None:
    words = "import sys; from ddpm_demo.models import zoo; zoo.facts('cifar10')"
    words += "; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"images": 1500}, "saw 1,500 pictures"),
        ({"images": 1500, "teacher": {}}, "saw 1,500 trajectories"),
        ({"images": 1500, "init": "base"}, "base + 1,500 more pictures"),
        ({"images": 1500, "init": "mine"}, "an earlier version + 1,500 more pictures"),
        ({"images": 1500, "base": "base", "train": {"only": "ship"}}, "base + 1,500 ship pictures"),
    ],
)
def test_a_model_says_what_it_learned_from(
    tiny: Callable[..., Checkpoint], info: dict[str, Any], says: str
) -> None:
    checkpoint = tiny()
    checkpoint.info = info
    checkpoint.name = "mine"
    assert about(checkpoint.facts).replace("\N{NO-BREAK SPACE}", " ").endswith(f"T = 20, {says}")
