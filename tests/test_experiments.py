"""Experiments: what they show, measure and save, on tiny networks."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from ddpm_demo import cli
from ddpm_demo.config import SampleConfig, settings
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.evaluation.classifier import Classifier, ClassifierConfig
from ddpm_demo.experiments import EXPERIMENTS, deciding
from ddpm_demo.experiments.asked import BUG_NAMES, Break, Decide, Guess, Guide, Race
from ddpm_demo.experiments.bugs import BUGS, recorded
from ddpm_demo.experiments.tools import (
    Hidden,
    Plot,
    Report,
    Sheet,
    Tools,
    Words,
    alike,
    interval,
    wilson,
)
from ddpm_demo.inference.generate import generate, play
from ddpm_demo.media import convert, plots
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint


@pytest.fixture
def tools(tiny: Callable[..., Checkpoint]) -> Tools:
    return Tools(load=lambda name: tiny())


def last(name: str, asked: Any, tools: Tools) -> Report:
    *_, report = EXPERIMENTS[name](asked, tools)
    assert report.done == 1
    return report


def test_rows_need_no_torch_and_describe_themselves() -> None:
    code = "import sys, ddpm_demo.experiments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for name, row in EXPERIMENTS.items():
        assert row.name == name
        assert row.question.endswith("?")
        assert row.about.endswith(".")
        assert settings(row.settings)
        assert row.settings()  # the defaults are allowed


def test_what_pages_and_links_say_is_read() -> None:
    row = EXPERIMENTS["race"]
    assert row.ask({"calls": "3, 7", "seed": 5.0}) == Race(calls=(3, 7), seed=5)
    for values, said in (
        ({"calls": "five"}, "Calls must be whole numbers"),
        ({"seed": "-1"}, "Seed must be .*, not -1"),
        ({"speed": 1}, "Setting must be model, calls or seed, not 'speed'"),
    ):
        with pytest.raises(ValueError, match=said):
            row.ask(values)


@pytest.mark.parametrize("n", [3, 4, 10, 100])
def test_the_interval_is_student_s(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    mean, half = interval(list(values))
    known = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(known, rel=0.035 if n == 3 else 0.01)


@pytest.mark.parametrize(("k", "n"), [(0, 16), (1, 16), (8, 16), (16, 16), (40, 130)])
def test_the_interval_of_a_share_is_wilson_s(k: int, n: int) -> None:
    known = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert wilson(k, n) == pytest.approx((known.low, known.high), abs=1e-6)


def test_continuations_begin_at_their_step_and_have_fresh_noise(
    tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a judge that knows the answer: whether the mean of a picture is above 0."""

    class Judge(Classifier):
        def extract(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean = pixels.float().mean((1, 2, 3)) - 127.5
            return mean[:, None], torch.stack([-mean, mean], 1)

    judge = Judge(ClassifierConfig(("dark", "bright"), 8, widths=(4, 4, 4, 4), dim=4))
    monkeypatch.setattr(deciding, "judge_of", lambda _: judge)
    checkpoint = tiny()
    report = last("decide", Decide(steps=10, seed=2), Tools(load=lambda _: checkpoint))
    config = checkpoint.best.but(sampler="dpmpp_2m_sde", steps=10, n=1, seed=2, eta=1.0)
    steps = list(generate(checkpoint, config))
    sheet = report.panels[0]
    assert isinstance(sheet, Sheet)
    assert np.array_equal(sheet.cells[0][-1], convert.to_uint8(steps[-1].x_t))
    bright = bool(steps[-1].x_t.clamp(-1, 1).mean() > 0)
    assert report.numbers["class"] == ("bright" if bright else "dark")
    pages = [panel for panel in report.panels if isinstance(panel, Hidden)]
    ts = [step.t for step in steps]
    assert [row["t"] for row in report.numbers["shares"]] == [ts[k] for k in (1, 2, 4, 6, 8)]
    for page, row in zip(pages, report.numbers["shares"], strict=True):
        ((ends,),) = page.panels[0].cells  # type: ignore[union-attr]
        assert row["same"] == int(((ends.mean((1, 2, 3)) > 127.5) == bright).sum())
        others = [end.tobytes() for end in (*ends, convert.to_uint8(steps[-1].x_t)[0])]
        assert len(set(others)) == 17  # none of them is the run itself
    said = next(panel for panel in report.panels if isinstance(panel, Words)).text
    ends = [(row["t"], *row["interval"]) for row in report.numbers["shares"]]
    for (a, low, high), (b, least, most) in itertools.pairwise(ends):
        apart = high < least or most < low
        assert any(f"t = {a} and t = {b}" in line for line in said) != apart
    xml = next(panel for panel in report.panels if isinstance(panel, Plot)).svg
    heights = [float(h) for h in re.findall(r'width="[\d.]+" height="([\d.]+)"', xml)]
    assert sum(heights) / len(ts) == pytest.approx(plots.HEIGHT - plots.BOTTOM - plots.TOP, abs=0.1)


def test_guidance_is_the_formula_and_w_1_is_the_conditional_network(
    tiny: Callable[..., Checkpoint],
) -> None:
    checkpoint = tiny(num_classes=3, T=30, predict="v")
    asked = Guide(label="kind 1", w=2.5, high=20, low=9, seed=1)
    report = last("guidance", asked, Tools(load=lambda _: checkpoint))
    for _, (without, with_, guided) in report.numbers["pixel"]:
        assert guided == pytest.approx(without + 2.5 * (with_ - without), abs=1e-5)
    config = checkpoint.best.but(steps=20, n=4, seed=1, labels=(1,), guidance=2.5)
    *steps, _ = generate(checkpoint, config.but(guidance=1.0))
    assert list(report.numbers["length"]) == [step.t for step in steps]
    denoise = Denoiser(checkpoint.model, checkpoint.diffusion, clip=False)
    t = torch.full((4,), steps[0].t)
    without = denoise(steps[0].x_t, t).eps
    denoise.y = torch.full((4,), 1)
    gaps = (denoise(steps[0].x_t, t).eps - without).square().mean((1, 2, 3)).sqrt()
    mean, half = report.numbers["length"][steps[0].t]
    assert mean == pytest.approx(float(gaps.mean()), rel=1e-4)
    assert half == pytest.approx(3.182 * float(gaps.std()) / 2, rel=0.03)  # t of 3 degrees, 95 %
    row, third = report.panels[0], report.panels[3]
    assert isinstance(row, Sheet)
    assert isinstance(third, Sheet)
    for k, changes in ((0, {"labels": None}), (1, {"guidance": 1.0}), (4, {"guidance": 6.0})):
        *_, end = generate(checkpoint, config.but(**changes))
        assert np.abs(row.cells[0][k].astype(int) - convert.to_uint8(end.x_t)).max() <= 1
    *_, end = play(checkpoint, config.but(guidance=1.0), ["guidance=6:20:9"])
    assert np.array_equal(third.cells[0][1], convert.to_uint8(end.x_t))


def test_what_differs_by_less_than_its_interval_is_said() -> None:
    found = {"a": (1.0, 0.1), "b": (1.25, 0.2), "c": (2.0, 0.1)}
    said = alike(found, 7)
    assert said == "a is the least; between it and b, no difference that can be seen at n = 7."
    assert alike({"c": (2.0, 0.1), "a": (1.0, 0.1)}, 7) == "a is the least."


def test_race_shows_the_runs_of_generate(tools: Tools) -> None:
    checkpoint = tools.load("tiny")
    report = last("race", Race(calls=(3, 8), seed=4), tools)
    sheet = report.panels[0]
    assert isinstance(sheet, Sheet)
    assert sheet.rows[0] == "DDIM"
    *_, end = generate(checkpoint, checkpoint.best.but(steps=8, n=4, seed=4))
    eight = sheet.columns.index("8 calls")  # the shipped students of mnist have columns too
    assert np.array_equal(sheet.cells[0][eight], convert.to_uint8(end.x_t))
    runs = {(r["sampler"], r["calls"]): r["distance"] for r in report.numbers["runs"]}
    *_, long = generate(checkpoint, checkpoint.best.but(sampler="dpmpp_2m", steps=20, n=4, seed=4))
    gap = (end.x_t - long.x_t).square().mean((1, 2, 3)).sqrt().mean()
    assert runs["ddim", 8] == pytest.approx(float(gap), rel=1e-5)
    assert runs["ddpm", 8] is None
    assert runs["ddim", 8] < runs["ddim", 3]


def test_race_shows_the_students_of_a_model_and_no_others(
    zoo: Path, tiny: Callable[..., Checkpoint]
) -> None:
    student = tiny(seed=1)
    student.info |= {
        "teacher": {"name": "tiny"},
        "few": {"2": [18, 7]},
        "sample": {"sampler": "ddim", "steps": 2, "clip": False},
    }
    save_checkpoint(zoo / "tiny-fast", student)
    models = {name: load_checkpoint(name) for name in ("tiny", "tiny-fast", "classy")}
    tools = Tools(load=models.__getitem__)
    report = last("race", Race("tiny", calls=(3,), seed=4), tools)
    sheet = report.panels[0]
    assert isinstance(sheet, Sheet)
    assert sheet.columns == ("2 calls", "3 calls")
    assert sheet.rows[-1] == "tiny-fast, a student"
    run = SampleConfig("ddim", n=4, seed=4, clip=False, timesteps=(18, 7))
    *_, end = generate(models["tiny-fast"], run)
    assert np.array_equal(sheet.cells[-1][0], convert.to_uint8(end.x_t))
    assert sheet.cells[-1][1] is None
    runs = {(r["sampler"], r["calls"]): r["distance"] for r in report.numbers["runs"]}
    assert runs["tiny-fast", 2] > 0
    other = last("race", Race("classy", calls=(2,)), tools).panels[0]
    assert isinstance(other, Sheet)
    assert not any("student" in row for row in other.rows)


def test_the_command_writes_a_picture_and_its_numbers(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "race.png"
    words = ["experiment", "race", "--model", "tiny", "--calls", "2,4", "--out", str(out)]
    assert cli.main(words) == 0
    with Image.open(out) as picture:
        assert picture.width == 1600
        said = picture.text["command"]  # type: ignore[attr-defined]
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["settings"] == {"model": "tiny", "calls": [2, 4], "seed": 0}
    assert said == "python -m ddpm_demo experiment race --model tiny --calls 2,4 --out race.png"
    assert cli.main([*words[:4], "--calls", "0"]) == 2
    assert (
        "Calls must be one to six whole numbers from 1 to 200, not (0,)." in capsys.readouterr().err
    )


def test_a_plot_is_drawn_where_it_is_in_the_page() -> None:
    from ddpm_demo.media.plots import line_plot
    from ddpm_demo.media.raster import draw_svg

    frame = draw_svg(line_plot({"a": ((0, 1), (0, 1)), "b": ((0, 1), (1, 0))}, "x", "y"), 1)
    teal = np.abs(frame.astype(int) - (0x0D, 0x94, 0x88)).sum(2) < 30
    rows, columns = np.nonzero(teal[40:, 62:])
    assert torch.corrcoef(torch.tensor(np.stack([columns, -rows])).double())[0, 1] > 0.99


@pytest.mark.parametrize("name", BUG_NAMES)
def test_each_bug_changes_the_run_and_leaves_the_right_one_alone(
    name: str, tiny: Callable[..., Checkpoint]
) -> None:
    bug = BUGS[name]
    model = tiny(
        T=1000 if name in ("short", "steep") else 20,
        num_classes=3 if name == "base-model" else 0,
        noise="laplace" if name == "other-noise" else "gaussian",
        predict="v" if name == "eps-for-v" else "eps",
    )
    if name == "base-model":
        model.info["sample"] = {"labels": [1]}
    raw = tiny(seed=1)
    tools = Tools(load=lambda wanted: raw if wanted.endswith("-raw") else model)
    report = last("break", Break(name, seed=3), tools)
    sheet = report.panels[0]
    assert isinstance(sheet, Sheet)
    (right,), (wrong,) = sheet.cells
    *_, end = generate(model, bug.config(model, 3, 8))
    assert np.array_equal(right, convert.to_uint8(end.x_t))
    assert not np.array_equal(wrong, right)
    assert report.numbers["difference"] > 0
    source = (Path(cli.__file__).parents[1] / bug.file).read_text(encoding="utf-8")
    assert bug.right in source
    assert bug.wrong != bug.right


def test_the_rows_of_bugs_are_the_choices() -> None:
    assert tuple(BUGS) == BUG_NAMES
    assert len(BUGS) >= 10
    for name, bug in BUGS.items():
        assert bug.why.count(".") >= 2
        if kept := recorded(name):
            assert kept["n"] >= 64
            assert len(kept["right"]) == len(kept["wrong"]) == 2


def test_the_game_has_one_broken_run_and_says_which(tools: Tools) -> None:
    report = last("guess", Guess(seed=1), tools)
    sheet, hidden = report.panels
    assert isinstance(sheet, Sheet)
    assert isinstance(hidden, Hidden)
    bug, checkpoint = BUGS[report.numbers["bug"]], tools.load("tiny")
    ends = [list(generate(checkpoint, bug.config(checkpoint, 1 + 8 * k, 8)))[-1] for k in range(3)]
    same = [np.array_equal(sheet.cells[k][0], convert.to_uint8(ends[k].x_t)) for k in range(3)]
    assert same == [letter != report.numbers["broken"] for letter in "ABC"]
