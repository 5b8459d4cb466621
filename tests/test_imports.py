"""Imports run one way, and only ui/ knows gradio (see CONTRIBUTING.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ddpm_demo"
FILES = sorted(PACKAGE.rglob("*.py"))
# The one call upwards: load_checkpoint hands published folders to hub, which builds on it.
UPWARDS = {("checkpoint", "hub")}


def imported(file: Path) -> set[str]:
    """Absolute names of everything that the file imports, anywhere in it."""
    package = ["ddpm_demo", *file.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, node.module] if node.module else base
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def part(file: Path) -> str:
    """The module, or the folder, that a file is: cli/common.py is a part of cli."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


PARTS = {part(f) for f in FILES} - {"__init__", "__main__"}


def graph() -> dict[str, set[str]]:
    """Which parts each part imports."""
    edges: dict[str, set[str]] = {name: set() for name in PARTS}
    for file in FILES:
        if part(file) in PARTS:
            names = (name.split(".") for name in imported(file))
            edges[part(file)] |= {n[1] for n in names if n[0] == "ddpm_demo" and len(n) > 1}
    return {
        a: {b for b in to if b in PARTS - {a} and (a, b) not in UPWARDS} for a, to in edges.items()
    }


def reach(edges: dict[str, set[str]], start: str) -> set[str]:
    found, todo = set(), [start]
    while todo:
        new = edges[todo.pop()] - found
        found |= new
        todo += new
    return found


def tiers() -> list[list[str]]:
    """The order that CONTRIBUTING.md promises, lowest first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    line = text.split("Imports run one way", 1)[1].strip().splitlines()[2]
    return [[name.strip() for name in tier.split(",")] for tier in line.split("→")]


def test_the_walk_sees_imports() -> None:
    """So that an empty graph can't pass for a good one."""
    edges = graph()
    assert {"unet", "schedule", "config"} <= edges["denoiser"]
    assert "train" in edges["cli"]
    assert "gradio" in {name.split(".")[0] for f in FILES for name in imported(f)}


def test_imports_run_one_way() -> None:
    edges = graph()
    list(TopologicalSorter(edges).static_order())  # raises CycleError, which names the circle
    order = {name: i for i, tier in enumerate(tiers()) for name in tier}
    assert len(order) >= 10
    assert set(order) <= PARTS
    for name, tier in order.items():
        above = {b for b in reach(edges, name) if order.get(b, 0) > tier}
        assert not above, f"{name} imports what is above it: {', '.join(above)}"


def test_nothing_is_above_the_command_line_and_the_app() -> None:
    for name, to in graph().items():
        assert not to & {"ui", "cli"} or name == "ui", f"{name} imports ui or cli"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_only_the_app_knows_gradio(file: Path) -> None:
    if part(file) != "ui":
        heads = {name.split(".")[0] for name in imported(file)}
        assert not heads & {"gradio", "gradio_client", "spaces"}
