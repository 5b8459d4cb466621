"""What README.md and the files of the project promise: commands, the card of a Space, versions."""

import re
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from ddpm_demo.cli import parser
from ddpm_demo.cli.training import configs, network
from ddpm_demo.config import ModelConfig

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT, BODY = TEXT.split("---\n", 2)[1:]
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
ALL = "\n".join([BODY, *DOCS]).replace("\\\n", "")
SHAPES = {"mnist": (28, 1, 10), "fashion_mnist": (28, 1, 10), "cifar10": (32, 3, 10)}


def words(line: str) -> list[str]:
    """The arguments of a command, where "…" stands for more of them."""
    found = shlex.split(line, comments=True)
    return [*found[:-1], "--images", "1k", "--out", "runs/x"] if found[-1] == "…" else found


COMMANDS = [words(line) for line in re.findall(r"^    .*-m ddpm_demo (.+)$", ALL, re.M)]
PUBLISHED = dict(re.findall(r"^\| (.+?) \| `(--dataset .+?)` \|$", ALL, re.M))


def asked(line: list[str]) -> tuple[ModelConfig, dict[str, Any]]:
    """The network of a `train` command, and its process and run as one."""
    o = parser().parse_args(["train", *line])
    process, run = configs(o)
    size, channels, classes = SHAPES.get(o.dataset, (32, 3, 0))  # else a folder
    model = network(o, o.size or size, channels, classes if o.class_conditional else 0)
    return model, vars(process) | vars(run)


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_a_command_parses(line: list[str]) -> None:
    assert parser().parse_args(line)
    if line[0] == "train":
        asked(line[1:])


def test_there_is_a_command_of_each_kind() -> None:
    kinds = {line[0] for line in COMMANDS}
    assert kinds >= {"sample", "noise", "train", "finetune", "evaluate", "models", "export"}
    assert sum(line[0] == "train" for line in COMMANDS) >= 5  # those of several devices too


LINEAR = {"T": 1000, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
WANTED: dict[str, dict[str, Any]] = {
    "Ho et al. 2020, CIFAR-10": LINEAR
    | {"dataset": "cifar10", "lr": 2e-4, "batch_size": 128, "images": 800_000 * 128}
    | {"ema": 0.9999, "loss": "mse", "noise": "gaussian", "predict": "eps", "decay": 0},
    "MNIST 32×32, 100 epochs": LINEAR | {"dataset": "mnist", "lr": 1e-4, "epochs": 100},
    "MNIST, Gaussian + MSE": LINEAR
    | {"dataset": "mnist", "batch_size": 1200, "epochs": 70, "noise": "gaussian", "loss": "mse"},
    "MNIST, Laplace + L1": LINEAR
    | {"dataset": "mnist", "batch_size": 1200, "epochs": 70, "noise": "laplace", "loss": "l1"},
    "CIFAR-10, 30 epochs": {"dataset": "cifar10", "batch_size": 512, "epochs": 30},
    "CIFAR-10, smooth-L1": {"dataset": "cifar10", "batch_size": 128, "epochs": 500}
    | {"loss": "smooth_l1"},
    "Fashion-MNIST, cosine": {"dataset": "fashion_mnist", "schedule": "cosine", "lr": 2e-4}
    | {"batch_size": 256, "epochs": 50},
}


def test_every_published_setting_is_there() -> None:
    assert PUBLISHED.keys() == WANTED.keys()


@pytest.mark.parametrize("source", WANTED)
def test_a_published_setting_means_what_was_published(source: str) -> None:
    model, run = asked(words(PUBLISHED[source]))
    assert {key: run[key] for key in WANTED[source]} == WANTED[source]
    if source.startswith("Ho"):
        assert model == ModelConfig.paper()
    if "MNIST" in source and "Fashion" not in source:
        assert (model.size, model.channels) == (32, 1)


def test_the_front_matter_is_a_space() -> None:
    card = yaml.safe_load(FRONT)
    assert (card["sdk"], card["license"]) == ("gradio", "mit")
    assert 0 < len(card["title"]) <= 60
    assert 0 < len(card["short_description"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card["colorFrom"], card["colorTo"]} <= colours
    assert not card["emoji"].isascii()
    assert (ROOT / card["app_file"]).is_file()
    assert (
        card["python_version"] == "3.12"
    )  # a string: 3.10 would be 3.1; ZeroGPU has 3.10 and 3.12
    assert all(re.fullmatch("[a-z0-9-]+", tag) for tag in card["tags"])
    (gradio,) = (r for r in requirements() if r.name == "gradio")
    assert card["sdk_version"] in gradio.specifier
    assert version("gradio") in gradio.specifier


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) < 150


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    inside = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in inside if not (ROOT / link).exists()] == []


def requirements(file: str = "requirements.txt") -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


@pytest.mark.parametrize(
    ("python", "torch", "torchvision"),
    [("3.10", "2.11.0", "0.26.0"), ("3.11", "2.14.1", "0.29.1"), ("3.12", "2.11.0", "0.26.0")],
)
def test_torch_is_one_that_the_place_has(python: str, torch: str, torchvision: str) -> None:
    """ZeroGPU has Python 3.10 and 3.12, and torch 2.8 to 2.11."""
    for name, newest, first in (("torch", torch, "2.8.0"), ("torchvision", torchvision, "0.23.0")):
        (found,) = (
            r
            for r in requirements()
            if r.name == name and r.marker and r.marker.evaluate({"python_version": python})
        )
        assert newest in found.specifier
        assert first in found.specifier
        major, minor, _ = Version(newest).release
        assert f"{major}.{minor + 1}.0" not in found.specifier


def test_checks_have_one_version() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = (repo["rev"] for repo in hooks if "ruff" in repo["repo"])
    (pinned,) = (r for r in requirements("requirements-dev.txt") if r.name == "ruff")
    assert str(pinned.specifier) == f"=={ruff.removeprefix('v')}"
    (biome,) = re.findall(r"@biomejs/biome@([\d.]+)", (ROOT / "Makefile").read_text())
    assert f"/schemas/{biome}/" in (ROOT / "biome.jsonc").read_text()


def test_no_file_is_too_large_for_a_space() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {
        f: (ROOT / f).stat().st_size for f in listed.stdout.split("\0") if (ROOT / f).is_file()
    }
    assert len(sizes) > 50
    assert {f: n for f, n in sizes.items() if n > 10_000_000} == {}
