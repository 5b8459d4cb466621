"""A function fits on a screen and has one job; a file is read in one go."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FUNCTION_LINES, FILE_LINES = 60, 350
PYTHON = [
    ROOT / "app.py",
    *(p for room in ("ddpm_demo", "benchmarks", "docs") for p in (ROOT / room).rglob("*.py")),
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function and its lines, without decorators."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(n.name, (n.end_lineno or 0) - n.lineno + 1) for n in found]


def test_functions_fit_on_a_screen() -> None:
    sizes = [(name(path), *found) for path in PYTHON for found in functions(path)]
    assert len(sizes) > 300
    assert [found for found in sizes if found[-1] > FUNCTION_LINES] == []


def test_files_are_read_in_one_go() -> None:
    sizes = [
        (name(path), len(path.read_text(encoding="utf-8").splitlines()))
        for kind in ("py", "js", "css")
        for path in (ROOT / "ddpm_demo").rglob(f"*.{kind}")
    ]
    assert len(sizes) > 50
    assert [found for found in sizes if found[-1] > FILE_LINES] == []


@pytest.mark.parametrize(("lines", "found"), [(1, 2), (60, 61)])
def test_the_lines_of_a_function_are_counted(tmp_path: Path, lines: int, found: int) -> None:
    path = tmp_path / "a.py"
    path.write_text("@decorated\ndef f():\n" + "    pass\n" * lines + "\n\nx = 1\n")
    assert functions(path) == [("f", found)]
