"""The tab "Measure" without a browser: its numbers, what it refuses, and what it offers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image

from ddpm_demo import data as d
from ddpm_demo.config import SampleConfig
from ddpm_demo.evaluation import frechet, references
from ddpm_demo.evaluation.bounds import BoundConfig, model_bound
from ddpm_demo.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ddpm_demo.evaluation.features import summarise
from ddpm_demo.evaluation.metrics import METRICS, Metric
from ddpm_demo.inference.batching import BatchedDenoiser
from ddpm_demo.inference.generate import generate
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.ui.components.controls import find
from ddpm_demo.ui.measure import asked, plans
from ddpm_demo.ui.measure import handlers as measuring
from ddpm_demo.ui.measure.report import HIGHER, LOWER, Figure, Report
from ddpm_demo.ui.server import runtime, work

KINDS = ("kind 0", "kind 1", "kind 2")
DIM = 5
TURNS, ANY, ALL = "each", "any", asked.ALL
USUAL = (["fd"], 2 * DIM, "ddim", 3, TURNS, 1, ALL, 4, 5)


@pytest.fixture
def models(zoo: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models "mnist", with a judge, "folder", "laplace" and "large", in an app of their own."""
    torch.manual_seed(0)
    path = zoo / "classifiers" / "mnist.safetensors"
    shape = {"size": 8, "channels": 1, "widths": (8, 8, 8, 8), "dim": DIM}
    save_classifier(path, Classifier(ClassifierConfig(KINDS, **shape), {"dataset": "mnist"}))
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 1, 8, 8), generator=g).byte()
    references.write(
        load_classifier(path), d.Images(pixels, torch.arange(90) // 30, KINDS), "test", path.parent
    )
    pictures = zoo.parent / "pictures"
    pictures.mkdir()
    for i, picture in enumerate(pixels[:5, 0].numpy()):
        Image.fromarray(picture).save(pictures / f"{i}.png")
    makes: dict[str, tuple[str, dict[str, Any]]] = {
        "mnist": ("mnist", {"num_classes": 3}),
        "folder": (f"folder:{pictures}", {}),
        "laplace": ("mnist", {"noise": "laplace"}),
        "large": ("mnist", {"size": 16}),
    }
    for name, (dataset, changes) in makes.items():
        model = tiny(**changes)
        model.info["dataset"] = dataset
        save_checkpoint(zoo / name, model)
    fresh = runtime.Models(load_checkpoint, 10**9)
    monkeypatch.setattr(runtime, "model", fresh)
    monkeypatch.setattr(runtime, "_seconds", {})
    return zoo


def numbers(result: str) -> list[float]:
    """What the sentences say, to six digits."""
    return [float(v) for v in re.findall(r'title="([\d.e-]+)"', result)]


@pytest.mark.parametrize(
    ("label", "against"), [(TURNS, ALL), ("kind 1", "kind 1"), (ANY, "kind 2")]
)
def test_the_distance_is_that_of_the_samples_it_shows(
    models: Path, label: str, against: str
) -> None:
    n = 35
    *_, (_, line, result, _) = measuring.run(
        True, None, {}, "mnist", ["fd"], n, "ddim", 3, label, 1, against, 4, 5
    )
    assert line == "Done: mnist."
    model, judge = load_checkpoint("mnist"), load_classifier("mnist")
    y = {TURNS: (0, 1, 2), "kind 1": (1,), ANY: None}[label]
    parts = []
    for seed in range(n):  # each alone
        *_, last = generate(model, SampleConfig(steps=3, n=1, seed=seed, labels=y))
        parts.append(torch.from_numpy(to_uint8(last.x_t).copy()).permute(0, 3, 1, 2))
    *_, mine = summarise(judge, torch.cat(parts))
    reference = references.read(judge, "test", None if against == ALL else KINDS.index(against))
    fd, floor, sure, sure_data = numbers(result)
    assert fd == pytest.approx(frechet.distance(mine, reference), rel=0.02)
    assert floor == pytest.approx(frechet.floor(reference, n), rel=0.006)
    assert sure == pytest.approx(100 * mine.sure / n, abs=0.06)
    assert sure_data == pytest.approx(100 * reference.sure / reference.n, abs=0.06)
    which = "" if against == ALL else f" of class {against}"
    assert f"{reference.n} test pictures{which}" in result


def test_all_pictures_are_counted_and_shown(models: Path) -> None:
    import json

    frames = []
    for screen, *_ in measuring.run(
        True, None, {}, "mnist", ["fd"], 35, "heun", 2, "kind 0", 2, ALL, 4, 5
    ):
        if isinstance(screen, str):
            message = json.loads(screen)
            frames += message.get("frames", [])
    assert [f["step"] for f in frames] == [12, 24, 35]


def test_the_bound_is_that_of_the_command_line(models: Path) -> None:
    controls = (["bpd"], 1, "ddim", 3, ANY, 1, ALL, 4, 5)
    *_, (_, _, result, _) = measuring.run(True, None, {}, "folder", *controls)
    model = load_checkpoint("folder")
    held_out = d.load(model.info["dataset"], train=False, size=8, channels=1)
    *_, bound = model_bound(model, held_out.batch(torch.arange(4)), BoundConfig(5))
    (total,) = numbers(result)
    prior, middle, end = (float(v) for v in re.findall(r"<td>([\d.e-]+)", result))
    assert total == pytest.approx(bound.total, abs=1e-3)
    assert prior + middle + end == pytest.approx(bound.total, abs=2e-3)
    assert result.count("<svg") == 2
    assert "4 test pictures" in result


def test_a_model_of_ones_own_is_measured(models: Path, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "mine", load_checkpoint("mnist"))
    own = {"mine (yours)": str(path)}
    *_, (_, line, *_) = measuring.run(True, None, own, "mine (yours)", *USUAL)
    assert line == "Done: mine (yours)."


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("nobody", 0, ["fd"], "Model must be"),
        ("mnist", 0, [], "Metrics must be one or more of them, not []"),
        ("mnist", 0, ["fid"], "Metric must be fd or bpd, not 'fid'"),
        ("mnist", 0, "fd", "Metrics must be"),
        ("mnist", 1, 2 * DIM - 1, "Number of pictures must be 10 or more, not 9: twice the 5"),
        ("mnist", 1, asked.N_MOST + 1, "Number of pictures must be"),
        ("mnist", 1, None, "Number of pictures must be"),
        ("mnist", 2, "best", "Sampler must be"),
        ("mnist", 3, 21, "Steps must be a whole number from 1 to 20"),
        ("mnist", 4, "ship", "Class must be"),
        ("mnist", 5, 21, "Guidance must be"),
        ("mnist", 6, "ship", "Class of the data must be all classes, kind 0"),
        ("folder", 0, ["fd"], "Data of the model must be"),
        ("folder", 0, ["bpd", "fd"], "Data of the model must be"),
        ("laplace", 0, ["bpd"], "Noise of the model must be"),
        ("large", 0, ["fd"], "Channels and size of the model must be"),
    ],
)
def test_bad_values_get_one_sentence(
    models: Path, name: str, at: int, value: Any, message: str
) -> None:
    controls = [*USUAL]
    controls[4] = TURNS if name == "mnist" else ANY
    controls[at] = value
    with pytest.raises(gr.Error, match=re.escape(message).replace("'", "(&#x27;)")):
        list(measuring.run(True, None, {}, name, *controls))
    # The line beside the button says the same, before anything is begun.
    assert message.split("'")[0] in measuring.how_long({}, name, *controls)


@pytest.mark.parametrize(
    ("at", "value", "message"), [(7, 0, "Test pictures must be"), (8, 21, "Terms must be")]
)
def test_bad_values_of_the_bound(models: Path, at: int, value: int, message: str) -> None:
    controls: list[Any] = [*USUAL]
    controls[0], controls[4], controls[at] = ["bpd"], ANY, value
    with pytest.raises(gr.Error, match=message):
        list(measuring.run(True, None, {}, "folder", *controls))


def test_data_that_is_gone_is_said_before_anything_is_drawn(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_args: Any, **_options: Any) -> d.Images:
        raise d.DataError("mnist is not in DIR, or not whole, and can't be downloaded; connect.")

    monkeypatch.setattr(d, "load", gone)
    monkeypatch.setattr(runtime, "draw", None)
    with pytest.raises(gr.Error, match="can&#x27;t be downloaded; connect"):
        list(measuring.run(True, None, {}, "mnist", ["fd", "bpd"], *USUAL[1:]))


def test_what_would_take_hours_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "seconds", lambda source: {1: 100.0, 16: 700.0})
    assert measuring.how_long({}, "mnist", *USUAL).startswith("About 23 min")
    controls = ["mnist", ["fd"], 40, *USUAL[2:]]
    assert "more than the limit of 60 min" in measuring.how_long({}, *controls)
    with pytest.raises(gr.Error, match="and the limit is 60 min"):
        list(measuring.run(True, None, {}, *controls))


def test_only_what_is_possible_is_offered(models: Path) -> None:
    def offered(name: str) -> tuple[list[str], str, int]:
        options, why = plans.offer(find(name, {}))
        return [metric for _, metric in options.wanted["choices"]], why["value"], options.n["value"]

    assert offered("mnist") == (["fd", "bpd"], "", 128)
    kinds, why, _ = offered("folder")
    assert kinds == ["bpd"]
    assert why.startswith("No distance: Data of the model must be mnist")
    kinds, why, _ = offered("laplace")
    assert kinds == ["fd"]
    assert why.startswith("No bits/dim: Noise of the model must be")
    next((models / "classifiers").glob("*.npz")).unlink()
    assert "There are no statistics of the test pictures" in offered("mnist")[1]


def test_a_fine_tuned_one_is_measured_as_what_it_is(models: Path) -> None:
    """Against the pictures of the class that it went to."""
    tuned = load_checkpoint("mnist")
    for name, only, label, against in (
        ("mnist-kind 2", None, "kind 2", "kind 2"),  # as shipped ones are called
        ("tuned", "kind 1", "kind 1", "kind 1"),
        ("all", None, TURNS, ALL),
    ):
        tuned.info |= {"base": "mnist", "train": {"only": only}}
        save_checkpoint(models / name, tuned)
        options, _ = plans.offer(find(name, {}))
        assert (options.labels["value"], options.against["value"]) == ([label], against)


def test_folders_of_this_disk_are_for_its_owner(models: Path) -> None:
    controls = (["bpd"], 1, "ddim", 3, ANY, 1, ALL, 4, 5)
    said: list[Any] = []
    with pytest.raises(gr.Error, match="visitors have no folders here"):
        said.extend(measuring.run(False, None, {}, "folder", *controls))
    assert "visitors have no folders here" in said[-1][1]  # it is in the line, too


def test_a_stopped_one_leaves_nothing(models: Path) -> None:
    walk = measuring.run(True, None, {}, "mnist", ["fd"], 100, "ddim", 20, TURNS, 1, ALL, 4, 5)
    said = [next(walk) for _ in range(9)]
    walk.close()
    assert [result for _, _, result, _ in said if isinstance(result, str)] == [""]


def test_samples_and_terms_share_the_passes_of_visitors_and_let_them_go_first(
    models: Path, busy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], runtime.denoiser
    monkeypatch.setattr(runtime, "seconds", lambda _name: {1: 1e-6})
    monkeypatch.setattr(
        runtime, "denoiser", lambda *a, **k: (made.append(real(*a, **k)), made[-1])[1]
    )
    walk = measuring.run(True, None, {}, "folder", ["bpd"], 10, "ddim", 3, ANY, 1, ALL, 4, 5)
    *_, (_, line, *_) = walk
    assert line == "Done: folder."
    assert len(made) == 1
    assert isinstance(made.pop(), BatchedDenoiser)

    walk = measuring.run(True, None, {}, "mnist", ["fd"], 20, "ddim", 3, TURNS, 1, ALL, 4, 5)
    with busy():
        while next(walk) != measuring.IDLE:
            pass
        assert [next(walk) for _ in range(5)] == [measuring.IDLE] * 5
        assert not made
    *_, (_, line, *_) = walk
    assert line == "Done: mnist."
    assert [type(m) for m in made] == [BatchedDenoiser] * 2  # 20 pictures, 10 at a time


def test_pictures_of_a_huge_model_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "load", None)
    with pytest.raises(ValueError, match="Size of the model must be"):
        work.data_of("cifar10", 1024, 3)


# Sentences


def figure(name: str, value: float, goal: str) -> Figure:
    return Figure(name, value, f"{value:g}", goal, ".")


def test_a_result_reads_without_a_legend(models: Path) -> None:
    *_, (_, _, result, made) = measuring.run(True, None, {}, "mnist", *USUAL)
    words = re.sub(r"<[^>]+>", "", result)
    number = r"\d[\d.e+-]*"
    assert re.search(
        rf"Distance from real digits: {number}\. Perfect would be about {number} with 10 samples\. "
        "↓ lower is better",
        words,
    )
    assert re.search(r"Clearly a digit: \d+ % \(real ones: \d+ %\) ↑ higher is better", words)
    assert made.title == "mnist, DDIM, 3 steps, 10 samples"


def test_a_run_stands_beside_the_one_before() -> None:
    first = Report("a", [figure("Distance", 3.0, LOWER), figure("Clearly", 80, HIGHER)], "")
    worse = Report("b", [figure("Distance", 4.0, LOWER), figure("Clearly", 80, HIGHER)], "")
    other = Report("c", [figure("Bits/dim", 3.75, LOWER)], "")
    assert "The run before: a" in worse.html(first)
    assert "<td>4</td><td>3</td><td>↑ worse</td>" in worse.html(first)
    assert "<td>3</td><td>4</td><td>↓ better</td>" in first.html(worse)
    assert "<td>80</td><td>80</td><td>the same</td>" in worse.html(first)
    less, more = (Report("d", [figure("FID", value, "")], "") for value in (7.0, 9.0))
    assert "<td>7</td><td>9</td><td>↓</td>" in less.html(more)  # it doesn't say what is better
    assert "<table" not in other.html(first)  # nothing that both have
    assert "<table" not in first.html(None)


def test_a_metric_is_one_row(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One from outside is offered, and measured."""

    class Mean:
        name, dim = "mean", 1

        def extract(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = pixels.float().mean((1, 2, 3))[:, None]
            return x, x

    row = Metric(
        "the mean of all pixels",
        label="Brightness",
        extractor=lambda suffix, device: Mean(),
        compare=lambda name, _, samples, data: {
            name: float(samples.mean),
            "of the data": float(data.mean),
        },
    )
    monkeypatch.setitem(METRICS, "brightness", row)
    options, _ = plans.offer(find("folder", {}))
    assert ("Brightness", "brightness") in options.wanted["choices"]
    controls = (["brightness"], 12, "ddim", 3, ANY, 1, ALL, 4, 5)
    *_, (_, line, result, _) = measuring.run(True, None, {}, "folder", *controls)
    assert line == "Done: folder."
    *_, last = generate(load_checkpoint("folder"), SampleConfig(steps=3, n=12))
    drawn, data = numbers(result)
    assert drawn == pytest.approx(float(to_uint8(last.x_t).mean()), rel=1e-3)
    held_out = d.load(load_checkpoint("folder").info["dataset"], train=False, size=8, channels=1)
    assert data == pytest.approx(float(held_out.pixels.float().mean()), rel=1e-4)


def test_idle_values_are_thinned_and_no_other() -> None:
    idle = ("idle",)
    said = list(work.sparing(iter([idle] * 3 + ["a"] * 5 + [idle] * 10_000 + ["b"]), idle))
    assert [value for value in said if value is not idle] == [*"aaaaa", "b"]
    assert 1 <= said.count(idle) < 20
