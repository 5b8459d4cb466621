"""Evaluation: distances against scipy on the pictures that `sample` makes, pages, cards."""

import dataclasses
import itertools
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from torch import Tensor

from ddpm_demo.cli import main
from ddpm_demo.config import SampleConfig
from ddpm_demo.data import Images, load
from ddpm_demo.evaluation import references
from ddpm_demo.evaluation import samples as e
from ddpm_demo.evaluation.bounds import BoundConfig, model_bound
from ddpm_demo.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ddpm_demo.evaluation.features import Summary, summarise
from ddpm_demo.evaluation.frechet import distance
from ddpm_demo.evaluation.metrics import METRICS, Metric
from ddpm_demo.machine.files import cache_folder
from ddpm_demo.media.plots import bar_plot, line_plot
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint

Capture = pytest.CaptureFixture[str]
DIM = 5


@pytest.fixture
def here(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a classifier, 60 pictures, and no caches but its own."""
    folder = zoo.parent / "here"
    (folder / "pictures").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ddpm_demo.machine.files.cache_folder", lambda name, _: folder / name)
    torch.manual_seed(0)
    channels = load_checkpoint("tiny").model.config.channels
    judge = Classifier(
        ClassifierConfig(("a", "b"), size=8, channels=channels, widths=(8, 8, 8, 8), dim=DIM), {}
    )
    save_classifier(folder / "judge.safetensors", judge)
    rng = np.random.default_rng(0)
    for i in range(60):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
    return folder


def run(line: str) -> int:
    try:
        return main(line.split())
    except SystemExit as left:
        return int(left.code or 0)


LINE = "evaluate --model tiny --dataset folder:pictures --metrics fd-judge.safetensors"


def test_only_a_models_own_name_is_written(here: Path) -> None:
    line = LINE.replace("tiny", str(here.parent / "checkpoints" / "tiny"))
    assert run(f"{line} -n 20 --steps 2 --out r.json") == 0
    assert json.loads(Path("r.json").read_text())["model"] == "tiny"


def test_the_distance_is_scipys_on_the_pictures_of_sample(here: Path, capsys: Capture) -> None:
    assert run(f"{LINE} -n 40 --steps 3,4 --samplers ddim,heun --seed 7 --out r.json") == 0
    said = capsys.readouterr().out
    result = json.loads(Path("r.json").read_text())
    assert [(r["sampler"], r["steps"]) for r in result["samples"]] == [
        *itertools.product(["ddim", "heun"], [3, 4])
    ]
    assert run("sample --model tiny --sampler heun --steps 4 -n 40 --seed 7 --out s.npz") == 0
    drawn = torch.from_numpy(np.load("s.npz")["arr_0"].transpose(0, 3, 1, 2).copy())
    data = load("folder:pictures", size=8, channels=drawn.shape[1]).pixels
    judge = load_classifier("judge.safetensors")
    a, b = (judge.extract(x)[0].double().numpy() for x in (drawn, data))
    roots = np.sqrt(linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0))
    gap = a.mean(0) - b.mean(0)
    wanted = gap @ gap + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * roots.sum()
    row = result["samples"][-1]
    assert row["fd-judge.safetensors"] == pytest.approx(wanted, rel=1e-4)
    assert f"{wanted:.3f}" in said
    assert sum(row["fd-judge.safetensors says"]["classes"].values()) == pytest.approx(1)


def test_shipped_statistics_stand_for_the_data(here: Path, zoo: Path) -> None:
    judge = load_classifier("judge.safetensors")
    judge.info["dataset"] = "folder:pictures"
    save_classifier(zoo / "classifiers" / "judge.safetensors", judge)
    line = LINE.replace("judge.safetensors", "judge") + " -n 40 --steps 2 --out r.json"
    channels = load_checkpoint("tiny").model.config.channels
    results = []
    for shipped in (False, True):
        if shipped:
            data = load("folder:pictures", size=8, channels=channels)
            data = dataclasses.replace(
                data, classes=("a",), labels=torch.zeros(len(data), dtype=int)
            )
            references.write(load_classifier("judge"), data, "train", zoo / "classifiers")
            shutil.rmtree("pictures")
            shutil.rmtree("statistics")
        assert run(line) == 0
        results.append(json.loads(Path("r.json").read_text()))
    (computed, found) = (r["samples"][0]["fd-judge"] for r in results)
    assert found == pytest.approx(computed, rel=1e-4)
    assert results[0]["n_data"] == results[1]["n_data"] == len(data)

    shutil.rmtree("samples")
    assert run(line.replace("--metrics ", "--metrics bpd,")) == 2  # that needs the data,
    assert not Path("samples").exists()  # and says so before anything is drawn


def test_the_histogram_is_shown(here: Path, capsys: Capture) -> None:
    assert run(f"{LINE} -n 40 --steps 2 --out r.json") == 0
    said = json.loads(Path("r.json").read_text())["samples"][0]["fd-judge.safetensors says"]
    line = next(row for row in capsys.readouterr().out.splitlines() if "classes that" in row)
    for name in ("a", "b"):
        mine, data = said["classes"][name], said["classes_data"][name]
        assert f"{name} {100 * mine:.1f} ({100 * data:.1f})" in line


@pytest.mark.parametrize(
    ("words", "labels", "only"),
    [
        ("", (0, 1, 2), None),
        ("--class any", None, None),
        ("--class 1", (1,), "kind 1"),
        ("--class 2,0", (2, 0), None),
        ("--class any --data-class=kind_2", None, "kind 2"),
    ],
)
def test_what_is_drawn_and_what_it_is_compared_with(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    labels: tuple[int, ...] | None,
    only: str | None,
) -> None:
    """And the statistics of the data are made once, for each class and split."""
    kinds = ("kind 0", "kind 1", "kind 2")
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 1, 8, 8), generator=g).byte()
    data = {True: Images(pixels, torch.arange(90) % 3, kinds)}
    data[False] = Images(pixels.flip(0)[:60], torch.arange(60) % 3, kinds)
    monkeypatch.setattr("ddpm_demo.data.load", lambda *_, train, **__: data[train])
    line = f"evaluate --model classy --dataset mnist --metrics fd-judge.safetensors {words}"
    line = f"{line} -n 12 --steps 2 --out r.json"
    for split in ("train", "test"):
        assert main([w.replace("_", " ") for w in f"{line} --split {split}".split()]) == 0
        result = json.loads(Path("r.json").read_text())
        wanted = data[split == "train"]
        wanted = wanted.only(only) if only else wanted
        judge = load_classifier("judge.safetensors")
        config = dataclasses.replace(load_checkpoint("classy").best, steps=2, n=12)
        samples = e.Samples(
            load_checkpoint("classy"),
            dataclasses.replace(config, labels=labels),
            cache=here / "samples",
        )
        assert not samples.missing
        (mine,), *_ = [samples.summaries([judge])]
        *_, theirs = summarise(judge, wanted.pixels)
        row = result["samples"][0]
        assert row["fd-judge.safetensors"] == pytest.approx(distance(mine, theirs), rel=1e-6)
        assert result["data_class"] == (only or "all")
    files = sorted(p.name for p in (here / "statistics").iterdir())
    word = (only or "all").replace(" ", "_")
    assert [name.partition("-classifier")[0].rpartition("-")[0] for name in files] == [
        f"mnist-{split}-{word}" for split in ("test", "train")
    ]
    assert len(files) == 2
    seen: list[int] = []
    extract = Classifier.extract
    monkeypatch.setattr(
        Classifier, "extract", lambda self, x: seen.append(len(x)) or extract(self, x)
    )
    assert main([w.replace("_", " ") for w in line.split()]) == 0
    assert sum(seen) == 1 + 12  # a blank one and the samples: no picture of the data


def test_processes_share_the_drawing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As `accelerate launch` and torchrun start them; here one after the other."""
    monkeypatch.setattr(e, "PAGE", 8)
    line = f"{LINE} -n 40 --steps 2"
    assert run(f"{line} --cache whole --out whole.json") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        capsys.readouterr()
        assert run(f"{line} --cache shared --out shared.json") == 0
        assert ("shared.json" in capsys.readouterr().out) == (rank == 0)
        assert len(list((here / "shared").rglob("*.npz"))) == (2 if rank else 5)
    assert Path("shared.json").read_text() == Path("whole.json").read_text()


def drain(samples: e.Samples, **rank: int) -> int:
    done = 0
    for step in samples.draw(**rank):
        done = step
    return done


def pixels(samples: e.Samples) -> Tensor:
    return torch.cat([p for page in samples.pages if (p := samples.read(page)) is not None])


def test_what_is_drawn_is_not_drawn_again(
    tiny: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e, "PAGE", 4)
    config = SampleConfig(steps=3, n=10)

    def samples(name: str, **changes: Any) -> e.Samples:
        return e.Samples(tiny(**changes), config, cache=tmp_path / name)

    whole = samples("whole")
    assert drain(whole) == 3 * 3
    killed = samples("killed")
    for _ in zip(range(6), killed.draw(), strict=False):
        pass  # dies in its second page
    assert len(killed.missing) == 2
    again = samples("killed")
    again.path(again.pages[0]).write_bytes(b"broken")
    assert drain(again) == 3 * 3
    assert torch.equal(pixels(again), pixels(whole))
    assert drain(samples("killed")) == 0

    shared = samples("shared")  # by two processes
    assert [drain(shared, rank=r, world=2) for r in (0, 1)] == [6, 3]
    assert torch.equal(pixels(shared), pixels(whole))
    with pytest.raises(OSError, match="missing"):
        samples("nowhere").summaries([])

    other = samples("whole", seed=1)  # other weights
    assert len(other.missing) == 3


def test_pages_are_a_run_in_parts() -> None:
    for n in (1, 3, 30, 700):
        pages = e.pages(SampleConfig(n=n, seed=5, labels=(2, 0, 1)), 100)
        seeds = [p.seed + k for p in pages for k in range(p.n)]
        assert seeds == list(range(5, 5 + n))
        assert max(p.n for p in pages) <= 100
        labels = [y for p in pages for y in p.label_of_each() or ()]
        assert labels == [(2, 0, 1)[s % 3] for s in seeds]


class Toy:
    """Features that need no weights."""

    name, dim = "toy", 4

    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = pixels.float().flatten(1) / 255
        return x[:, :4], x[:, 4:10] * 9


def test_inceptions_numbers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_demo.evaluation.inception.Inception", lambda device: Toy())
    line = "evaluate --model tiny --dataset folder:pictures --steps 2 -n 100 --out r.json"
    assert run(f"{line} --metrics fid,is,precision_recall") == 0
    row = json.loads(Path("r.json").read_text())["samples"][0]
    assert row["fid"] > 0
    assert 1 <= row["is"] <= 6
    assert 0 <= row["precision"] <= 1
    assert 0 <= row["recall"] <= 1


def test_the_card_gets_one_section(here: Path, zoo: Path) -> None:
    card = zoo / "tiny" / "README.md"
    card.write_text("# tiny\n\nWords.\n\n## Limits\n\nMany.\n")
    for n in (40, 44):
        assert run(f"{LINE} -n {n} --steps 2 --card") == 0
    text = card.read_text()
    assert text.startswith("# tiny\n\nWords.\n\n## Limits\n\nMany.\n\n## Evaluation\n")
    assert text.count("## Evaluation") == 1
    assert "44 samples" in text
    assert "40 samples" not in text
    by = "python -m ddpm_demo evaluate --model tiny --metrics fd-judge.safetensors -n 44 --steps 2"
    assert text.endswith(f"\n\nBy\n\n    {by} --dataset folder:pictures\n")
    card.write_text(text + "\n## Last\n\nWord.\n")
    assert run(f"{LINE} -n 48 --steps 2 --card") == 0
    assert card.read_text().endswith("\n## Last\n\nWord.\n")
    assert "48 samples" in card.read_text()


def test_bits_per_dim(here: Path) -> None:
    line = "evaluate --model tiny --dataset folder:pictures --metrics bpd --bpd-steps 5"
    assert run(f"{line} --out r.json") == 0
    said = json.loads(Path("r.json").read_text())["bpd"]
    model = load_checkpoint("tiny")
    held_out = load("folder:pictures", train=False, size=8, channels=model.model.config.channels)
    x_0 = held_out.batch(torch.arange(len(held_out)))
    *_, bound = model_bound(model, x_0, BoundConfig(5))
    assert said["bits_per_dim"] == pytest.approx(bound.total)
    assert said["n"] == len(held_out)
    for name in ("terms", "rate-distortion"):
        root = ET.parse(f"r-{name}.svg").getroot()
        assert len(root.findall(".//{*}polyline")) == 1


def test_a_plot_has_its_points() -> None:
    svg = line_plot({"L": ([1, 2, 3], [10, float("nan"), 0.1])}, "t", "loss & more", log=True)
    line = ET.fromstring(svg).find(".//{*}polyline")
    assert line is not None
    points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
    assert len(points) == 2
    assert points[0][0] < points[1][0]
    assert points[0][1] < points[1][1]  # downwards
    with pytest.raises(ValueError, match="no point"):
        line_plot({"": ([1], [0])}, "x", "y", log=True)


def test_bars_are_as_long_as_their_shares() -> None:
    svg = ET.fromstring(bar_plot(["cat", "<dog>"], {"samples": [0.5, 0.25], "data": [0.1, 0]}))
    lengths = [float(bar.get("width", "")) for bar in svg.findall(".//{*}rect[@class='bar']")]
    assert [v / lengths[0] for v in lengths] == pytest.approx([1, 0.5, 0.2, 0], abs=1e-3)
    words = [text.text for text in svg.findall(".//{*}text")]
    assert {"cat", "<dog>", "samples", "data", "50.0 %", "0.0 %"} <= set(words)
    assert "0.0 %" in bar_plot(["none"], {"samples": [0]})
    with pytest.raises(ValueError, match="no bar"):
        bar_plot([], {"samples": []})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--metrics fid -n 5000", "The Inception weights can't be downloaded (no route)"),
        (
            "--metrics fd-judge.safetensors,fun",
            "Metric must be fd-CLASSIFIER, bpd, fid, is or precision_recall",
        ),
        ("--metrics fd-judge.safetensors -n 9", "Number of pictures must be 10 or more"),
        ("--metrics fd-nobody", "There is no classifier 'nobody'"),
        ("--metrics bpd --model laplace", "Noise of the model must be gaussian"),
        ("--metrics bpd --class cat", "Class must be"),
        ("--metrics fd-judge.safetensors --steps 21", "Steps must be"),
        ("--metrics fd-judge.safetensors --samplers best", "Sampler must be"),
        ("--metrics fd-judge.safetensors --card --model judge.safetensors", "shipped model"),
    ],
)
def test_refusals_come_before_anything_is_drawn(
    line: str,
    message: str,
    here: Path,
    zoo: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., Checkpoint],
) -> None:
    from ddpm_demo.models.checkpoint import save_checkpoint

    save_checkpoint(zoo / "laplace", tiny(noise="laplace"))

    def fail(*_: Any) -> None:
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(here))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setattr(e, "Samples", None)
    monkeypatch.setattr("ddpm_demo.evaluation.bounds.model_bound", None)
    if "--model judge" in line:
        save_checkpoint(here / "judge-model", tiny())
        line = line.replace("--model judge.safetensors", "--model judge-model")
    given = f"evaluate --model tiny --dataset folder:pictures -n 40 --steps 2 {line}"
    assert run(given) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A metric from outside: how bright samples are, and the data."""

    class Mean:
        name, dim = "mean", 1

        def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            x = pixels.float().mean((1, 2, 3))[:, None]
            return x, x

    def compare(name: str, _: Any, samples: Summary, data: Summary) -> dict[str, Any]:
        return {name: float(samples.mean), f"{name}_data": float(data.mean)}

    row = Metric(
        "the mean of all pixels",
        label="Brightness",
        extractor=lambda suffix, device: Mean(),
        compare=compare,
    )
    monkeypatch.setitem(METRICS, "brightness", row)
    return row


def test_a_metric_is_one_row(here: Path, capsys: Capture, brightness: Any) -> None:
    assert run("evaluate --help") == 0
    assert "brightness: the mean of all pixels" in " ".join(capsys.readouterr().out.split())
    line = LINE.replace("--metrics ", "--metrics brightness,")
    assert run(f"{line} -n 40 --steps 2 --out r.json") == 0
    row = json.loads(Path("r.json").read_text())["samples"][0]
    assert run("sample --model tiny --steps 2 -n 40 --out s.npz") == 0
    assert row["brightness"] == pytest.approx(np.load("s.npz")["arr_0"].mean(), rel=1e-5)
    data = load("folder:pictures", size=8, channels=1).pixels
    assert row["brightness_data"] == pytest.approx(float(data.float().mean()), rel=1e-5)
    assert f"brightness {row['brightness']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["-n 40 --steps 2", "-n 40 --steps 2 --cache file/samples"])
def test_a_cache_that_cannot_be_written_is_refused_before_the_work(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """A file in the way stands for a read-only home: this also holds for root."""
    (here / "file").touch()
    monkeypatch.setattr("ddpm_demo.machine.files.cache_folder", lambda *_: here / "file" / "in")
    monkeypatch.setattr(e, "Samples", None)
    assert run(f"{LINE} {line}") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "Nothing can be written in" in said
    assert said.endswith("Name another folder with --cache.")


def test_without_a_home_the_cache_is_asked_for(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_demo.machine.files.cache_folder", cache_folder)
    monkeypatch.setenv("HOME", "")
    assert run(f"{LINE} -n 40 --steps 2") == 2
    assert "no place for samples: name one (--cache)" in capsys.readouterr().err
    assert run(f"{LINE} -n 40 --steps 2 --cache samples") == 0


def test_results_are_written_before_they_are_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[str]:
        raise OSError("the terminal is gone")

    monkeypatch.setattr("ddpm_demo.evaluation.report.row_lines", broken)
    assert run(f"{LINE} -n 40 --steps 2 --out r.json") == 1
    assert json.loads(Path("r.json").read_text())["samples"][0]["fd-judge.safetensors"] > 0
