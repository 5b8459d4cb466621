"""What docs/ shows in Python is so: code runs, and the names in its tables are there."""

import ast
import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import ddpm_demo as dd
from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, TrainConfig

DOCS = Path(__file__).parent.parent / "docs"
PYTHON = (DOCS / "python.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+) \| (.+) \|$", PYTHON.split("## From a DDPM notebook")[1], re.M)[2:]
CODES = [code for _, right in ROWS for code in re.findall(r"`([^`]*)`", right)]


def test_a_step_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "step.md").read_text("utf-8"), re.S)
    exec(code, {})
    said = re.fullmatch(r"(\d+) to (\d+) differ by at most (.*)\n", capsys.readouterr().out)
    assert said
    assert int(said[1]) > int(said[2])
    assert float(said[3]) < 1e-5


def test_the_functions_of_the_notebook_are_all_there() -> None:
    there = " ".join(left for left, _ in ROWS)
    names = "load_data show_image_dataset FullUNet DDPM TrainingLoop generate_image show_images"
    more = "train_cifar_by_class calc_and_save_stats get_inception_score_and_fid torch.load"
    assert all(name in there for name in f"{names} {more}".split())


@pytest.mark.parametrize("code", [c for c in CODES if re.match(r"(dd|ddpm_demo)\.\w", c)])
def test_what_replaces_them_can_be_called(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    path, node = [], call.func if isinstance(call, ast.Call) else call
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    found: Any = dd
    for name in path:
        found = getattr(found, name)
    if isinstance(call, ast.Call):
        known = set(inspect.signature(found).parameters)
        if "settings" in known:
            known |= {f.name for c in (SampleConfig, TrainConfig) for f in dataclasses.fields(c)}
        assert {word.arg for word in call.keywords} <= known
        assert len(call.args) <= len(known)


def test_its_settings_exist() -> None:
    for code, kind in (("ModelConfig", ModelConfig), ("DiffusionConfig", DiffusionConfig)):
        (shown,) = (c for c in CODES if c.startswith(f"{code}("))
        assert isinstance(eval(shown, {code: kind}), kind)


spec = importlib.util.spec_from_file_location("code_of_docs", DOCS / "code.py")
assert spec
assert spec.loader
links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(links)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_a_file_and_to_its_line(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / link).exists(), link
    for path, name in links.LINK.findall(text):
        lines = (DOCS.parent / f"{path}.py").read_text("utf-8").splitlines()
        assert not name or name.split(".")[-1] in lines[links.line_of("\n".join(lines), name) - 1]


def test_a_step_is_explained_with_links_into_the_code() -> None:
    text = (DOCS / "step.md").read_text("utf-8")
    assert len(links.LINK.findall(text)) >= 10
    line = links.line_of("class A:\n    def b(self):\n        pass", "A.b")
    assert line == 2
    assert "](code/ddpm_demo/diffusion/walk.md#__codelineno-0-" in links.on_page_markdown(text)
