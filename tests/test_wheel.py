"""`pip install .` gives the whole program, in a wheel of less than a megabyte."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from ddpm_demo.models.zoo import models_folder

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, as building leaves things behind."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.xz")
    shutil.copytree(ROOT / "ddpm_demo", folder / "source" / "ddpm_demo", ignore=ignore)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    subprocess.run([*PIP, "wheel", *options, folder / "source"], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_all_files_and_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 10**6
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (entries,) = (n for n in names if n.endswith("entry_points.txt"))
        assert b"ddpm-demo = ddpm_demo.cli:main" in file.read(entries)
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ddpm_demo").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".xz")  # MNIST: 9 MB, else downloaded
    }
    assert ours <= names


def test_the_command_of_a_fresh_environment_finds_models_or_says_how(
    wheel: Path, tmp_path: Path
) -> None:
    place = tmp_path / "fresh"
    venv.create(place, with_pip=False)  # its packages are those that run the tests
    (site,) = place.glob("**/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", wheel], check=True)
    env = {k: v for k, v in os.environ.items() if k not in ("DDPM_DEMO_MODELS", "PYTHONPATH")}

    def run(*words: str, cwd: Path = tmp_path) -> str:
        line = [python.with_name("ddpm-demo"), *words]
        done = subprocess.run(line, env=env, cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout

    assert "There are no shipped models in" in run("models")
    models = tmp_path / "here" / "checkpoints"
    models.mkdir(parents=True)
    (models / "digits").symlink_to(models_folder() / "mnist")
    listed = run("models", cwd=models.parent)
    assert listed.startswith("digits ")
    assert run("--models", str(models), "models") == listed
