"""Distances of features against scipy, closed forms and torch-fidelity itself."""

from __future__ import annotations

import http.client
import math
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from torch import Tensor

from ddpm_demo.evaluation.features import MetricError, Summary, reference, summarise
from ddpm_demo.evaluation.frechet import distance, floor, frechet, judge, require_enough
from ddpm_demo.evaluation.inception import (
    Inception,
    inception_score,
    inception_weights,
    precision_recall,
)

DIM, KINDS = 6, 4


class Toy:
    """Fixed random features of any pictures. It counts what it is shown."""

    dim = DIM

    def __init__(self, name: str = "toy-1") -> None:
        self.name, self.seen = name, 0

    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(pixels)
        return project(pixels)


def project(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 6) features and (B, 4) logits of the first 8 x 8 pixels, the same in any batch."""
    g = torch.Generator().manual_seed(3)
    x = pixels[:, :, :8, :8].float().mean(1).flatten(1) / 127.5 - 1
    raw = (x[:, :, None] * torch.randn(64, DIM + KINDS, generator=g)).sum(1)
    return raw[:, :DIM], raw[:, DIM:]


def pictures(n: int, seed: int, channels: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (n, channels, 8, 8), generator=g)
    return (noise * (0.4 + 0.1 * seed) + 20).clamp(0, 255).byte()


def drain(steps: Iterator[Summary]) -> Summary:
    *_, last = steps
    return last


def summary(n: int = 200, seed: int = 0, keep: int = 0) -> Summary:
    return drain(summarise(Toy(), pictures(n, seed), keep=keep))


def spd(dim: int, seed: int, rank: int | None = None) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(dim, rank or 2 * dim, generator=g, dtype=torch.float64)
    return torch.randn(dim, generator=g, dtype=torch.float64), a @ a.T / dim


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_frechet_agrees_with_scipys_root(dim):
    (m1, c1), (m2, c2) = spd(dim, 1), spd(dim, 2)
    root = linalg.sqrtm(c1.numpy() @ c2.numpy())
    wanted = float((m1 - m2) @ (m1 - m2)) + np.trace(c1.numpy() + c2.numpy() - 2 * root).real
    assert frechet(m1, c1, m2, c2) == pytest.approx(wanted, rel=1e-10)
    assert frechet(m2, c2, m1, c1) == pytest.approx(wanted, rel=1e-10)
    assert 0 <= frechet(m1, c1, m1, c1) < 1e-12 * dim**2


def test_frechet_in_closed_form():
    """Diagonal covariances: the distance of each pair of standard deviations, squared."""
    a, b = torch.tensor([[1.0, 4, 9, 0], [4, 1, 0, 0]]).double()
    gap = torch.tensor([3.0, 0, 0, 4]).double()
    turn, _ = torch.linalg.qr(spd(4, 5)[1])
    wanted = 25 + 1 + 1 + 9
    turned = [turn @ v.diag() @ turn.T for v in (a, b)]
    assert frechet(gap, a.diag(), 0 * gap, b.diag()) == pytest.approx(wanted, rel=1e-12)
    # singular ones, turned: rounding makes eigenvalues of -1e-16, whose roots must not be NaN
    assert frechet(turn @ gap, turned[0], 0 * gap, turned[1]) == pytest.approx(wanted, rel=1e-6)
    for seed in range(20):  # rounding takes some of these a little below 0
        low = spd(20, seed, rank=4)
        assert 0 <= frechet(*low, *low) < 1e-6


@pytest.mark.parametrize("sizes", [(200,), (1, 199), (64, 64, 72), (1,) * 200])
def test_summary_is_that_of_all_pictures_at_once(sizes):
    features, logits = project(pictures(200, 0))
    features = features + 1e4  # far from 0, where the textbook's sum of squares loses its digits
    got = Summary(keep=70)
    for f, said in zip(features.split(sizes), logits.split(sizes), strict=True):
        got.add(f, said)
    x = features.double().numpy()
    assert got.n == 200
    assert np.abs(got.mean.numpy() - x.mean(0)).max() < 1e-9
    assert np.abs(got.covariance.numpy() - np.cov(x, rowvar=False)).max() < 1e-8
    p = torch.softmax(logits.double(), 1).numpy()
    assert got.counts.tolist() == [int((p.argmax(1) == k).sum()) for k in range(KINDS)]
    assert got.sure == int((p.max(1) > 0.9).sum())
    assert 0 < got.sure < 200
    assert torch.equal(got.features, features[:70])
    assert torch.equal(got.logits, logits[:70])


def test_summarise_reports_every_batch():
    toy = Toy()
    seen = [s.n for s in summarise(toy, pictures(90, 1), batch_size=40)]
    assert seen == [40, 80, 90]
    assert toy.seen == 90


def test_judge():
    data, fake = summary(200, 0), summary(150, 2)
    got = judge(fake, data, ["a", "b", "c", "d"])
    x, y = (project(pictures(n, s))[0].double().numpy() for n, s in ((150, 2), (200, 0)))
    cov = [np.cov(v, rowvar=False) for v in (x, y)]
    root = linalg.sqrtm(cov[0] @ cov[1])
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov[0] + cov[1] - 2 * root).real
    assert got["fd"] == pytest.approx(wanted, rel=1e-9)
    assert (got["n"], got["n_data"]) == (150, 200)
    assert got["sure"] == fake.sure / 150
    assert got["sure_data"] == data.sure / 200
    assert got["classes"]["b"] == int(fake.counts[1]) / 150
    assert list(got["classes_data"]) == ["a", "b", "c", "d"]
    assert sum(got["classes_data"].values()) == pytest.approx(1)
    assert got == judge(summary(150, 2), summary(200, 0), ["a", "b", "c", "d"])  # deterministic
    assert distance(data, data) < 1e-9


def test_too_few_pictures_are_refused_with_the_reason():
    enough, few = summary(2 * DIM, 0), summary(2 * DIM - 1, 1)
    distance(enough, enough)
    for pair in ((few, enough), (enough, few)):
        with pytest.raises(ValueError, match=r"pictures must be 12 or more.* 6 features"):
            distance(*pair)
    with pytest.raises(ValueError, match="must be 4,096 or more"):
        require_enough(4095, 2048)


def test_reference_is_read_the_second_time(tmp_path):
    toy, data, key = Toy(), pictures(50, 0), ("folder:a/b", "train", "a cat")
    cache = tmp_path / "not" / "there"
    steps = list(reference(toy, data, key, keep=9, cache=cache, batch_size=20))
    assert len(steps) == 3
    assert toy.seen == 50
    (file,) = cache.iterdir()
    assert file.name.startswith("folder_a_b-train-a_cat-50-keep9-toy-1-")
    (again,) = reference(toy, data, key, keep=9, cache=cache)
    assert toy.seen == 50
    for name in ("n", "sure"):
        assert getattr(again, name) == getattr(steps[-1], name)
    for name in ("mean", "scatter", "counts", "features", "logits"):
        assert torch.equal(getattr(again, name), getattr(steps[-1], name))
    assert len(again.features) == 9
    assert distance(again, steps[-1]) < 1e-9


def test_reference_is_made_again_for_anything_else(tmp_path):
    data, key = pictures(50, 0), ("mnist", "test", "all")
    others = [
        (Toy(), data, key, 0),
        (Toy("toy-2"), data, key, 0),
        (Toy(), data, ("mnist", "train", "all"), 0),
        (Toy(), data, ("mnist", "test", "7"), 0),
        (Toy(), data, key, 5),
        (Toy(), data[:49], key, 0),
        (Toy(), data ^ 1, key, 0),
    ]
    for toy, pixels, k, keep in others:
        drain(reference(toy, pixels, k, keep=keep, cache=tmp_path))
        assert toy.seen == len(pixels)
    assert len(list(tmp_path.iterdir())) == len(others)


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_a_broken_cache_is_made_again(tmp_path, broken):
    data, key = pictures(50, 0), ("mnist",)
    wanted = drain(reference(Toy(), data, key, cache=tmp_path))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(broken or good[: len(good) // 2])
    toy = Toy()
    got = drain(reference(toy, data, key, cache=tmp_path))
    assert toy.seen == 50
    assert torch.equal(got.scatter, wanted.scatter)
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    got = drain(reference(Toy(), pictures(20, 0), ("a",), cache=tmp_path / "file" / "in"))
    assert got.n == 20


def test_a_run_that_is_stopped_caches_nothing(tmp_path):
    steps = reference(Toy(), pictures(50, 0), ("a",), cache=tmp_path, batch_size=20)
    next(steps)
    next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == []


# ---- torch-fidelity -----------------------------------------------------------------------------


def test_without_torch_fidelity_there_is_one_sentence(monkeypatch):
    loaded = [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]
    for name in {"torch_fidelity", *loaded}:  # another test may have loaded its parts
        monkeypatch.setitem(sys.modules, name, None)
    for ask in (
        Inception,
        inception_weights,
        lambda: inception_score(summary(100, 0, keep=100)),
        lambda: precision_recall(summary(50, 0, keep=50), summary(50, 1, keep=50)),
    ):
        with pytest.raises(MetricError, match="need torch-fidelity; install it with"):
            ask()


@pytest.fixture
def fidelity() -> Iterator[object]:
    """torch-fidelity, with our own extractor put in by its own hook."""
    library = pytest.importorskip("torch_fidelity")

    class Extractor(library.FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        def forward(self, pixels):
            both = dict(zip(("features", "logits"), project(pixels), strict=True))
            return tuple(both[name] for name in self.features_list)

    library.register_feature_extractor("toy", Extractor)
    yield library
    del library.registry.FEATURE_EXTRACTORS_REGISTRY["toy"]


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_torch_fidelity_on_saved_pngs(fidelity, tmp_path, channels):
    sets = {"fake": pictures(160, 2, channels), "real": pictures(220, 3, channels)}
    for name, pixels in sets.items():
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(picture.squeeze()).save(tmp_path / name / f"{i:04}.png")
    theirs = fidelity.calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        feature_extractor="toy",
        fid=True,
        isc=True,
        prc=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    extractor = Inception(extractor="toy")
    assert extractor.dim == DIM
    fake, real = (drain(summarise(extractor, sets[k], keep=300)) for k in ("fake", "real"))
    assert distance(fake, real) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    mean, std = inception_score(fake)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    precision, recall = precision_recall(fake, real)
    assert (precision, recall) == (theirs["precision"], theirs["recall"])
    assert precision != recall
    assert 0 < precision < 1


def test_inception_score_in_closed_form(fidelity):
    """Sure of one of K classes, each as often as the others: K. Never sure: 1."""
    s = Summary(keep=1000)
    which = torch.arange(1000) % 8
    s.add(torch.zeros(1000, 2), 100 * torch.nn.functional.one_hot(which, 8))
    mean, std = inception_score(s)
    assert mean == pytest.approx(8, rel=0.05)  # shuffled into splits of 100, not quite even
    assert std < 0.2
    s = Summary(keep=1000)
    s.add(torch.zeros(1000, 2), torch.zeros(1000, 8))
    assert inception_score(s) == pytest.approx((1, 0), abs=1e-12)


def test_precision_and_recall_are_not_swapped(fidelity):
    """Samples of one of two modes are all right, but miss the other half of the data."""
    g = torch.Generator().manual_seed(0)
    one, both = Summary(keep=400), Summary(keep=400)
    x = torch.randn(400, 2, generator=g) * 0.01
    one.add(x[:200] + torch.tensor([1.0, 0]), torch.zeros(200, 2))
    modes = torch.tensor([[1.0, 0], [-1, 0]])[torch.arange(400) % 2]
    both.add(torch.randn(400, 2, generator=g) * 0.01 + modes, torch.zeros(400, 2))
    precision, recall = precision_recall(one, both)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_too_few_for_scores(fidelity):
    with pytest.raises(ValueError, match="pictures must be 100 or more for 10 splits, not 99"):
        inception_score(summary(200, 0, keep=99))
    with pytest.raises(ValueError, match="pictures must be 4 or more, not 3"):
        precision_recall(summary(200, 0, keep=3), summary(200, 0, keep=50))
    with pytest.raises(ValueError, match="Extractor must be"):
        Inception(extractor="vgg")


@pytest.fixture
def hub(fidelity, tmp_path, monkeypatch) -> Path:
    """Where torch.hub keeps the weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3
    return tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b""),
        RuntimeError("invalid hash"),
    ],
)
def test_weights_that_cannot_be_had(hub, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(MetricError, match="can't be downloaded") as refusal:
        Inception()
    sentence = str(refusal.value)
    assert str(hub) in sentence
    assert "https://" in sentence
    assert "connect once, or put" in sentence


def test_weights_are_downloaded_once_with_their_hash(hub, monkeypatch):
    asked = []

    def download(url, path, prefix):
        asked.append((url, prefix))
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert inception_weights() == inception_weights() == hub
    ((url, prefix),) = asked
    assert url.endswith(f"-{prefix}.pth")
    assert len(prefix) == 8


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.parametrize("kind", ["text", "empty", "pickle", "others", "missing"])
def test_a_file_that_is_not_inception_is_refused_and_never_run(fidelity, tmp_path, kind):
    path = tmp_path / "weights.pth"
    if kind == "text":
        path.write_bytes(b"<html>not found</html>")
    elif kind == "empty":
        path.touch()
    elif kind == "pickle":
        torch.save(Bomb(), path)
    elif kind == "others":
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(MetricError, match=r"weights.pth (is not a whole file|holds other)"):
        Inception(path)


def test_inceptions_own_architecture_runs(fidelity, tmp_path, monkeypatch):
    """With random weights, through a file as the real ones come."""
    kind = fidelity.FeatureExtractorInceptionV3
    monkeypatch.setattr(kind, "load_state_dict", lambda self, _: None)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {})
    extractor = Inception(tmp_path / "weights.pth")
    features, logits = extractor.extract(pictures(2, 0, channels=1))
    assert extractor.dim == features.shape[1] == 2048
    assert logits.shape == (2, 1008)
    assert math.isfinite(float(features.sum()))


def test_the_floor_is_that_of_the_datas_own_gaussian() -> None:
    """For a perfect model E[d] goes as 1/n (a chi-squared), and with many draws to 0."""
    data = summary(n=2000)
    few, more = floor(data, 50), floor(data, 5000)
    assert 0 < more < few / 20
    x = np.random.default_rng(0).multivariate_normal(
        data.mean.numpy(), data.covariance.numpy(), (40, 50)
    )
    drawn = [
        frechet(torch.tensor(f.mean(0)), torch.tensor(np.cov(f.T)), data.mean, data.covariance)
        for f in x
    ]
    assert abs(few - np.mean(drawn)) < 4 * np.std(drawn)
