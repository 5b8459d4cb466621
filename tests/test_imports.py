"""Imports run one way, and only ui/ knows gradio (see CONTRIBUTING.md)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ddpm_demo"
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    """ddpm_demo/ui/app.py is ui.app, ddpm_demo/cli/__init__.py is cli."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(f): f for f in FILES}


def imported(file: Path) -> set[str]:
    """Absolute names of everything that the file imports, wherever in it."""
    package = ["ddpm_demo", *file.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def typing_only(file: Path) -> set[str]:
    """What is imported under `if TYPE_CHECKING`, and so not when the program runs."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {
        f"{'.' * n.level}{n.module}.{a.name}"
        for b in blocks
        for n in ast.walk(b)
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }


def top(module: str) -> str:
    return module.split(".")[0]


def graph(at_start: bool = False) -> dict[str, set[str]]:
    """Which of our modules each imports; all of ui counts as one, and all of cli.

    Args:
        at_start: only what a module imports when it is imported itself, not inside functions.
    """
    edges: dict[str, set[str]] = {top(name): set() for name in MODULES}
    for name, file in MODULES.items():
        if at_start:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            tree.body = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
            lines = ast.unparse(tree)
            scratch = imported_text(lines, file)
        else:
            scratch = imported(file)
        for target in scratch:
            head, _, rest = target.partition(".")
            if head == "ddpm_demo" and top(rest) in edges and top(rest) != top(name):
                edges[top(name)].add(top(rest))
    return edges
