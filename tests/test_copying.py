"""Nearest neighbours and the exact denoiser, against brute force; MNIST out of its one file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.data import Images, packed
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.evaluation.classifier import Classifier, ClassifierConfig
from ddpm_demo.experiments import EXPERIMENTS, copying, few
from ddpm_demo.experiments.asked import Copying
from ddpm_demo.experiments.nearest import nearest
from ddpm_demo.experiments.tools import Sheet, Table, Tools
from ddpm_demo.inference.generate import generate
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.exact import Exact
from ddpm_demo.models.load import load_checkpoint


def test_mnist_has_its_pictures_labels_and_size() -> None:
    train, test = packed.mnist(True), packed.mnist(False)
    assert packed.FILE.stat().st_size < 9_500_000
    assert (len(train), len(test)) == (60_000, 10_000)
    # as published: the mean and deviation that everybody normalises by, and the first digits
    assert float(train.pixels.double().mean() / 255) == pytest.approx(0.1307, abs=1e-4)
    assert float(train.pixels.double().std() / 255) == pytest.approx(0.3081, abs=1e-4)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert train.labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip


def test_nearest_is_brute_force_on_all_60_000() -> None:
    pool, queries = packed.mnist().pixels, packed.mnist(False).pixels[:16]
    nearest(queries, pool)
    begun = time.thread_time()
    found = nearest(queries, pool)
    took = time.thread_time() - begun
    for k in (0, 7, 15):
        gaps = ((pool.int() - queries[k].int()) ** 2).flatten(1).sum(1)
        known = gaps.topk(5, largest=False).values
        assert torch.equal(gaps[found.places[k]], known)
        wanted = (known.double() / 784).sqrt() / 127.5
        assert torch.allclose(found.distance[k], wanted, atol=1e-12)
    assert took < 1.5  # 0.2 s on a quiet core


def test_the_exact_denoiser_is_the_posterior_mean() -> None:
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(5, 1, 8, 8, generator=g) * 2 - 1
    process = DiffusionConfig(100, "cosine", predict="x0")
    model = Exact(pictures, process)
    denoise = Denoiser(model, process)  # type: ignore[arg-type]
    x, t = torch.randn(3, 1, 8, 8, generator=g), torch.tensor([1, 50, 99])
    for k in range(3):
        ab = float(denoise.schedule.alpha_bar[t[k]])
        weights = [
            np.longdouble(-0.5) * float(((x[k] - ab**0.5 * p).double() ** 2).sum()) / (1 - ab)
            for p in pictures
        ]
        likely = np.exp(np.array(weights) - max(weights))
        mean = np.tensordot(likely / likely.sum(), pictures.numpy(), 1)
        assert np.abs(denoise(x, t).x0[k].numpy() - mean).max() < 1e-5


def test_it_gives_back_training_pictures_through_any_sampler() -> None:
    checkpoint = load_checkpoint("exact:mnist:20")
    pool = packed.mnist().pixels[:20]
    for sampler in ("ddim", "ddpm", "dpmpp_2m"):
        run = checkpoint.best.but(sampler=sampler, n=4, seed=3)
        *_, end = generate(checkpoint, run)
        made = torch.from_numpy(convert.to_uint8(end.x_t)).permute(0, 3, 1, 2)
        assert float(nearest(made, pool, 1).distance.max()) < 0.02
    for name, said in (("exact:cats:5", "must be mnist, not 'cats'"), ("exact:mnist:0", "not 0")):
        with pytest.raises(ValueError, match=said):
            load_checkpoint(name)


def test_neighbours_in_features_are_brute_force_among_the_nearest() -> None:
    torch.manual_seed(0)
    judge = Classifier(ClassifierConfig(("a", "b"), widths=(4, 4, 4, 4), dim=6)).eval()
    found = copying._Found(packed.mnist().pixels[:300])
    made = packed.mnist(False).pixels[:8]
    found.pictures["made"] = made.permute(0, 2, 3, 1).numpy()
    found.look_by(judge)
    places, distance = found.near["features"]
    features, _ = judge.extract(found.pool)
    own, _ = judge.extract(made)
    for k in range(8):
        pixels = (found.pool.int() - made[k].int()).square().flatten(1).sum(1)
        among = pixels.topk(copying.AMONG, largest=False).indices
        gaps = (features[among] - own[k]).square().mean(1).sqrt()
        assert torch.allclose(distance[k], gaps.topk(5, largest=False).values, atol=1e-5)
        assert set(places[k].tolist()) <= set(among.tolist())


@pytest.mark.usefixtures("zoo")  # without the small models
def test_the_card_finds_what_was_copied(tiny: Callable[..., Checkpoint]) -> None:
    model = tiny()
    model.info["dataset"] = "own"
    *_, end = generate(model, model.best.but(steps=20, n=24, seed=0))
    made = torch.from_numpy(convert.to_uint8(end.x_t)).permute(0, 3, 1, 2)
    g = torch.Generator().manual_seed(0)
    other = torch.randint(0, 256, (60, 1, 8, 8), generator=g).byte()
    model.info["sample"] = {"steps": 20}

    def data(name: str, size: int, channels: int, train: bool) -> Images:
        pixels = torch.cat([other[:40], made]) if train else other[40:]
        return Images(pixels, torch.zeros(len(pixels)).long())

    tools: Any = Tools(load=lambda _: model, data=data)
    *_, report = EXPERIMENTS["copying"](Copying("tiny", pictures=3), tools)
    assert max(report.numbers["made"]["distances"]) == 0
    assert max(report.numbers["exact"]["distances"]) < 0.02
    assert min(report.numbers["test"]["distances"]) > 0.3
    assert "features" not in report.numbers  # there is no classifier of such pictures
    sheet, table = report.panels[0], report.panels[3]
    assert isinstance(sheet, Sheet)
    assert isinstance(table, Table)
    assert np.array_equal(sheet.cells[0][2], sheet.cells[1][2])
    assert table.rows[0][1:] == ("24", "0.000 ± 0.000")


def test_models_of_few_pictures_are_looked_up_among_their_own(
    zoo: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network gives back is at no distance; two networks that are the same agree."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), generator=g).byte()
    digits = Images(pixels, torch.arange(40) % 10, tuple("0123456789"))
    for name, part in (("10", "10"), ("half-a", "20"), ("half-b", "20:40")):
        model = tiny()
        model.info |= {"dataset": "mnist", "train": {"pictures": part}, "sample": {"steps": 2}}
        save_checkpoint(zoo / f"{few.PREFIX}{name}", model)
    known = digits.pixels[digits.part("10")]
    monkeypatch.setattr(few, "_drawn", drawn := Drawn(known.repeat(3, 1, 1, 1)[: few.N]))
    *_, report = few.run(0, Tools(data=lambda *_, **__: digits))
    assert drawn.names == few.names() == [few.PREFIX + n for n in ("10", "half-a", "half-b")]
    assert report.numbers["mnist-small-10"]["nearest"] == (0, 0)
    assert report.numbers["mnist-small-10"]["test"][0] > 0
    assert report.numbers["mnist-small-half-b"]["nearest"][0] > 0  # none of its own
    assert report.numbers["same"] == (0, 0)
    assert report.numbers["other"][0] > 0
    sheet = report.panels[0]
    assert isinstance(sheet, Sheet)
    assert [np.array_equal(a[0], b[0]) for a, b in zip(*sheet.cells[:2], strict=True)] == [True] * 8
    assert not np.array_equal(sheet.cells[4][0], sheet.cells[5][0])


class Drawn:
    """In place of `few._drawn`: the same pictures each time."""

    def __init__(self, pictures: torch.Tensor) -> None:
        self.pictures, self.names = pictures, list[str]()

    def __call__(self, name: str, _seed: int, _tools: Tools) -> torch.Tensor:
        self.names.append(name)
        return self.pictures
