"""The classifiers that judge samples: training, files and the command line, on made-up pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ddpm_demo.cli import fit_classifier as f
from ddpm_demo.data import DATASETS, Images
from ddpm_demo.evaluation import classifier as k
from ddpm_demo.evaluation.features import reference
from ddpm_demo.evaluation.frechet import require_enough
from ddpm_demo.models.checkpoint import CheckpointError, load_tensors, save_tensors
from ddpm_demo.training.trainer import DivergedError

NAMES = ("rows", "columns", "dots")
SMALL = k.ClassifierConfig(NAMES, size=8, widths=(8, 8, 8, 8), dim=5)


def stripes(n: int, seed: int = 0, channels: int = 1, size: int = 8) -> Images:
    """Rows, columns or dots, in noise: easy to tell apart, and still so when moved or mirrored."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=g)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    kinds = torch.stack([y % 2, x % 2, (x + y) % 2]) * 120
    noise = torch.randint(0, 130, (n, channels, size, size), generator=g)
    return Images((kinds[labels][:, None] + noise).byte(), labels, NAMES, flip=True)


def made(config: k.ClassifierConfig = SMALL, seed: int = 0) -> k.Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return k.Classifier(config, {"dataset": "mnist"}).eval()


@pytest.fixture(scope="module")
def trained() -> tuple[k.Classifier, list[f.Progress]]:
    model = made()
    return model, list(f.fit(model, stripes(600), f.Recipe(epochs=5, batch_size=32)))


def test_it_learns(trained):
    model, steps = trained
    assert [p.step for p in steps] == list(range(1, 94))  # 5 * 600 / 32, cut
    assert {p.steps for p in steps} == {93}
    assert sum(p.loss for p in steps[-10:]) < 0.3 * sum(p.loss for p in steps[:10])
    assert not model.training
    report = f.assess(model, stripes(300, seed=1))
    assert report.accuracy > 0.95
    assert report.n == 300
    assert list(report.by_class) == list(NAMES)


def test_it_is_in_eval_mode_whenever_the_caller_has_it():
    """A preview between two steps must not depend on its batch, nor move the running statistics."""
    model, data = made(), stripes(40)
    for _ in f.fit(model, data, f.Recipe(epochs=1, batch_size=20)):
        before = {name: v.clone() for name, v in model.state_dict().items()}
        whole = model.extract(data.pixels[:6])
        for i in range(6):
            for all_, one in zip(whole, model.extract(data.pixels[i : i + 1]), strict=True):
                assert (all_[i : i + 1] - one).abs().max() < 1e-5
        assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
        assert not whole[0].requires_grad
        assert torch.is_grad_enabled()


def test_training_is_the_same_every_time_and_leaves_the_global_generator_alone():
    runs = []
    for seed in (0, 0, 1):
        model, state = made(), torch.get_rng_state()
        losses = [p.loss for p in f.fit(model, stripes(60), f.Recipe(1, 20, seed=seed))]
        assert torch.equal(torch.get_rng_state(), state)
        runs.append((losses, model.name))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][1] != runs[2][1]  # other weights have another name
    assert runs[0][1].startswith("mnist-")


@pytest.mark.parametrize("fixed", ["augment", "Shuffle"])
def test_the_seed_decides_both_order_and_augmentation(monkeypatch, fixed):
    other = {"augment": lambda x, *_: x, "Shuffle": lambda n, _, kind=f.Shuffle: kind(n, 0)}
    monkeypatch.setattr(f, fixed, other[fixed])
    first = [next(f.fit(made(), stripes(60), f.Recipe(1, 20, seed=seed))).loss for seed in (0, 1)]
    assert first[0] != first[1]


def test_the_learning_rate_rises_for_a_fifth_and_falls_to_nothing(monkeypatch):
    seen: list[float] = []
    step = torch.optim.SGD.step

    def spy(self, *arguments):
        seen.append(self.param_groups[0]["lr"])
        assert {g["lr"] for g in self.param_groups} == {seen[-1]}
        assert [g["weight_decay"] for g in self.param_groups] == [5e-4, 0]
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    list(f.fit(made(), stripes(100), f.Recipe(epochs=2, batch_size=10, lr=0.1)))
    assert len(seen) == 20
    assert seen[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert seen[-1] == pytest.approx(0.1 / 16)
    assert np.diff(seen[4:]) == pytest.approx([-0.1 / 16] * 15)


def test_a_rate_that_is_too_high_is_named():
    with pytest.raises(DivergedError, match=r"The loss is (nan|inf) at step \d+; try a smaller lr"):
        list(f.fit(made(), stripes(200), f.Recipe(epochs=40, batch_size=4, lr=10, weight_decay=1)))


def test_augmenting_moves_each_picture_and_mirrors_half():
    x = torch.arange(2 * 6 * 6).float().reshape(1, 2, 6, 6).expand(400, -1, -1, -1)
    g = torch.Generator().manual_seed(0)
    got = f.augment(x, 2, True, g)
    assert got.shape == x.shape
    padded = torch.nn.functional.pad(x[:1], [2] * 4, mode="reflect")[0]
    crops = {}
    for dy in range(5):
        for dx in range(5):
            crop = padded[:, dy : dy + 6, dx : dx + 6]
            crops[dy, dx, False], crops[dy, dx, True] = crop, crop.flip(2)
    found = [next(key for key, c in crops.items() if torch.equal(c, one)) for one in got]
    assert len({f[:2] for f in found}) == 25
    assert 150 < sum(f[2] for f in found) < 250
    still = f.augment(x, 2, False, torch.Generator().manual_seed(0))
    assert not any(next(key for key, c in crops.items() if torch.equal(c, one))[2] for one in still)
    assert torch.equal(f.augment(x, 0, False, g), x)


def test_assess_counts():
    class Fixed(k.Classifier):
        def extract(self, pixels):
            p = torch.tensor([[0.95, 0.03, 0.02], [0.5, 0.3, 0.2], [0.03, 0.95, 0.02]])
            return torch.zeros(len(pixels), 5), p[pixels[:, 0, 0, 0].long()].log()

    pixels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    pixels[4:7], pixels[7:] = 1, 2
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1, 2])
    got = f.assess(Fixed(SMALL), Images(pixels, labels, NAMES), batch_size=3)
    assert got.accuracy == pytest.approx(0.6)  # 3 of 4, 1 of 3, 2 of 3
    assert got.sure == pytest.approx(0.7)
    assert got.sure_accuracy == pytest.approx(5 / 7)
    assert got.by_class == pytest.approx({"rows": 1, "columns": 0.4, "dots": 0})


def test_file_and_back(trained, tmp_path):
    model, _ = trained
    model.info["note"] = "x"
    k.save_classifier(path := tmp_path / "deep" / "c.safetensors", model)
    again = k.load_classifier(path)
    assert again.config == model.config
    assert again.info == model.info
    assert again.name == model.name
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    pixels = stripes(50, seed=2).pixels
    for one, other in zip(model.extract(pixels), again.extract(pixels), strict=True):
        assert (one - other).abs().max() < 0.02 * one.abs().max()  # half precision
    k.save_classifier(tmp_path / "twice.safetensors", again)
    assert (tmp_path / "twice.safetensors").read_bytes() == path.read_bytes()
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {n for n in model.state_dict() if "batches" not in n}
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert json.loads(file.metadata()["ddpm_demo"])["classifier"]["classes"] == list(NAMES)


def test_features_are_what_the_last_layer_decides_by(trained):
    model, _ = trained
    pixels = stripes(20, seed=3).pixels
    features, logits = model.extract(pixels)
    assert features.shape == (20, model.dim) == (20, 5)
    x = pixels.float() / 127.5 - 1
    with torch.no_grad():
        assert torch.equal(model(x), logits)
        assert torch.allclose(features @ model.head.weight.T + model.head.bias, logits, atol=1e-5)
    assert features.min() >= 0


def test_a_residual_block_that_does_nothing_is_the_identity():
    block = k._Residual(3).eval()
    torch.nn.init.zeros_(block.body[1][0].weight)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


def test_a_shipped_one_by_name_and_one_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_DEMO_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no classifier 'toy'.*or a shipped one: none"):
        k.load_classifier("toy")
    k.save_classifier(tmp_path / "classifiers" / "toy.safetensors", made())
    assert k.load_classifier("toy").name == made().name
    with pytest.raises(CheckpointError, match=r"no classifier 'a/b'.*shipped one: toy\."):
        k.load_classifier("a/b")


def test_files_that_are_no_classifiers(tmp_path):
    path = tmp_path / "c.safetensors"

    def refused(match):
        with pytest.raises(CheckpointError, match=match):
            k.load_classifier(path)

    path.write_bytes(b"\x80\x04pickle")
    refused("not a whole safetensors file")
    save_file({"a": torch.zeros(1)}, path)
    refused("not made by ddpm_demo")
    save_tensors(path, {"a": torch.zeros(1)}, {"version": 1, "model": {}, "diffusion": {}})
    refused("not a classifier of ours")
    k.save_classifier(path, made())
    state, about = load_tensors(path)
    save_tensors(path, state, about | {"version": 9})
    refused("Its version must be 1, not 9")
    save_tensors(path, state, about | {"classifier": about["classifier"] | {"widths": [8, 8]}})
    refused("four whole numbers")
    save_tensors(path, state | {"head.bias": torch.full((3,), torch.nan).half()}, about)
    refused("head.bias holds NaN")
    del state["head.weight"]
    save_tensors(path, state | {"more": torch.zeros(1)}, about)
    refused("head.weight is missing; more is unknown")


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"Shape of the pictures must be \(1, 8, 8\), .*, not \(3, 8, 8\)"
    ):
        made().extract(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (k.ClassifierConfig, {"classes": ("one",)}),
        (k.ClassifierConfig, {"classes": NAMES, "channels": 2}),
        (k.ClassifierConfig, {"classes": NAMES, "widths": (8, 8, 8, 0)}),
        (k.ClassifierConfig, {"classes": NAMES, "dim": 0}),
        (f.Recipe, {"epochs": 0}),
        (f.Recipe, {"lr": 0}),
        (f.Recipe, {"batch_size": 1}),
    ],
)
def test_wrong_configurations_are_refused(kind, bad):
    with pytest.raises(ValueError, match="must be"):
        kind(**bad)


@pytest.mark.parametrize("name", DATASETS)
def test_the_ones_we_ship_are_small_and_need_few_pictures(name):
    size, channels = (32, 3) if name == "cifar10" else (28, 1)
    shape = dict(DATASETS[name].judge)
    assert shape.pop("epochs") > 0
    names = tuple(map(str, range(10)))
    model = made(k.ClassifierConfig(names, size, channels, **shape))
    assert 2 * sum(v.numel() for v in k.weights(model).values()) < 5_000_000  # bytes
    assert 64 <= model.dim <= 128
    require_enough(256, model.dim)
    features, logits = model.extract(torch.zeros(2, channels, size, size, dtype=torch.uint8))
    assert features.shape == (2, model.dim)
    assert logits.shape == (2, 10)


def test_it_is_an_extractor_of_the_metrics(trained, tmp_path):
    model, _ = trained
    data = stripes(300, seed=4)
    *_, summary = reference(model, data.pixels, ("stripes", "test", "all"), cache=tmp_path)
    said = [int((model.extract(data.pixels)[1].argmax(1) == i).sum()) for i in range(3)]
    assert summary.counts.tolist() == said
    (file,) = tmp_path.iterdir()
    assert model.name in file.name


def test_command_line(tmp_path, monkeypatch, capsys):
    def load(dataset, folder, *, train):
        assert (dataset, folder) == ("cifar10", tmp_path)
        return stripes(120 if train else 60, seed=int(train), channels=3)

    monkeypatch.setattr(f.d, "load", load)
    out = tmp_path / "mine.safetensors"
    common = ["--dataset", "cifar10", "--data-dir", str(tmp_path), "--device", "cpu"]
    assert f.main([*common, "--out", str(out), "--epochs", "2", "--batch-size", "30"]) == 0
    model = k.load_classifier(out)
    right = f.assess(model, load("cifar10", tmp_path, train=False)).accuracy
    assert model.info["test"]["accuracy"] == right
    assert model.info["recipe"]["epochs"] == 2
    assert model.info["images"] == 240
    assert f.main([*common, "--out", str(tmp_path / "b.safetensors"), "--epochs", "1"]) == 0
    again = ["--out", str(tmp_path / "c.safetensors"), "--epochs", "1", "--seed", "1"]
    assert f.main([*common, *again]) == 0
    stems = [load_tensors(tmp_path / f"{n}.safetensors")[0]["body.0.0.weight"] for n in "bc"]
    assert (stems[0] - stems[1]).abs().mean() > 0.05  # the seed decides the first weights too
    text = out.with_suffix(".md").read_text()
    assert text.startswith("# mine\n")
    assert f"**Test accuracy: {100 * right:.2f} %** of 60 pictures" in text
    assert "--dataset cifar10 --epochs 2 --batch-size 30 --lr 0.1 --weight-decay 0.0005" in text
    assert "| dots |" in text
    printed = capsys.readouterr()
    assert f"mine.safetensors: {100 * right:.2f} %" in printed.out
    assert "8/8" in printed.err  # the bar
    assert "images/s" in printed.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--out", "x.pt"], 2, "Suffix of --out must be"),
        (["--out", "x.safetensors", "--lr", "0"], 2, "lr must be a number above 0"),
        (["--out", "x.safetensors", "--data-dir", "/dev/null/no"], 2, "can't be downloaded"),
    ],
)
def test_command_line_refuses_in_one_line(monkeypatch, capsys, arguments, code, said):
    from torchvision import datasets

    def offline(*_, download, **__):
        raise RuntimeError("no network" if download else "not there")

    monkeypatch.setattr(datasets, "MNIST", offline)
    assert f.main(arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("ddpm_demo: ")
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(f.d, "load", lambda *_, **__: stripes(30))
    monkeypatch.setattr(f, "fit", None)
    assert f.main(["--out", str(tmp_path / "file" / "a.safetensors"), "--device", "cpu"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        f.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--data-dir" in text
    assert f"default: {DATASETS['mnist'].judge['epochs']} for mnist" in text
