"""What is said of the shipped models without torch, against the models once they are loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import available, facts


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
