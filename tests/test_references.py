"""Statistics of the data, made, read and shipped, against the pictures themselves."""

from pathlib import Path

import pytest
import torch

from ddpm_demo import data as d
from ddpm_demo.evaluation import references
from ddpm_demo.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ddpm_demo.evaluation.features import MetricError, summarise
from ddpm_demo.evaluation.frechet import distance
from ddpm_demo.models.zoo import models_folder

NAMES = ("dark", "bright", "grey")


@pytest.fixture
def data() -> d.Images:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (150, 1, 8, 8), generator=g).byte()
    pixels[:50] //= 3
    return d.Images(pixels, torch.arange(150) // 50, NAMES)


@pytest.fixture
def judge(zoo: Path) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(NAMES, size=8, channels=1, widths=(8, 8, 8, 8), dim=5)
    path = zoo / "classifiers" / "mnist.safetensors"
    save_classifier(path, Classifier(config, {"dataset": "mnist"}))
    return load_classifier(path)


@pytest.fixture(autouse=True)
def folder(zoo: Path) -> Path:
    return zoo / "classifiers"


@pytest.mark.parametrize("label", [None, 0, 2])
def test_they_say_what_the_pictures_say(
    judge: Classifier, data: d.Images, folder: Path, label: int | None
) -> None:
    path = references.write(judge, data, "test", folder)
    assert path.name == f"{judge.name}-test-150.npz"
    found = references.read(judge, "test", label)
    seen = data if label is None else data.only(NAMES[label])
    *_, wanted = summarise(judge, seen.pixels, batch_size=7)
    assert (found.n, found.sure) == (wanted.n, wanted.sure)
    assert torch.equal(found.counts, wanted.counts)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=1e-5, atol=1e-7)
    *_, others = summarise(judge, data.pixels[::3])
    assert distance(others, found) == pytest.approx(distance(others, wanted), rel=1e-4, abs=1e-6)


def test_other_weights_have_none(judge: Classifier, data: d.Images, folder: Path) -> None:
    references.write(judge, data, "test", folder)
    for wrong, split in ((judge, "train"), (Classifier(judge.config, judge.info).eval(), "test")):
        with pytest.raises(MetricError, match=r"python -m ddpm_demo\.evaluation\.references mnist"):
            references.read(wrong, split)
    with pytest.raises(ValueError, match="Split must be train or test, not 'all'"):
        references.read(judge, "all")
    with pytest.raises(ValueError, match="Class must be a whole number from 0 to 2"):
        references.read(judge, "test", 3)


def test_by_name(judge: Classifier, data: d.Images, folder: Path) -> None:
    assert references.shipped(judge, "mnist", "test") is None  # not made yet
    references.write(judge, data, "test", folder)
    whole, one = (references.shipped(judge, "mnist", "test", only) for only in (None, NAMES[1]))
    assert whole is not None
    assert one is not None
    assert torch.equal(whole.mean, references.read(judge, "test").mean)
    assert torch.equal(one.mean, references.read(judge, "test", 1).mean)
    assert references.shipped(judge, "cifar10", "test") is None
    with pytest.raises(ValueError, match=r"Class must be .*, not 'none'"):
        references.shipped(judge, "mnist", "test", "none")


def test_the_command_leaves_no_stale_ones(
    judge: Classifier,
    data: d.Images,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stale = folder / "mnist-0badcafe-test-150.npz"
    stale.touch()
    assert references.main(["nobody"]) == 2
    assert "There is no classifier 'nobody'" in capsys.readouterr().err
    monkeypatch.setattr(d, "load", lambda *_args, **_options: data)
    assert references.main(["mnist"]) == 0
    made = [f"{judge.name}-{split}-150.npz" for split in ("test", "train")]
    assert [Path(line).name for line in capsys.readouterr().out.split()] == made
    assert sorted(p.name for p in folder.glob("*.npz")) == made


def test_every_shipped_classifier_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDPM_DEMO_MODELS")
    shipped = sorted((models_folder() / "classifiers").glob("*.safetensors"))
    assert len(shipped) >= 2
    for path in shipped:
        judge = load_classifier(path)
        for split, n in (("train", None), ("test", judge.info["test"]["n"])):
            found = references.read(judge, split)
            assert n in (None, found.n)
            assert int(found.counts.sum()) == found.n
            # what the card says, from the same pictures
            share = judge.info["test"]["sure"] if split == "test" else found.sure / found.n
            assert found.sure / found.n == pytest.approx(share, abs=2e-3)
        file = next(path.parent.glob(f"{judge.name}-test-*.npz"))
        assert file.stat().st_size < 500_000
