"""Fine-tuning a copy of a tiny model to one class of a tiny, made-up data set."""

import errno
import hashlib
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo import data as d
from ddpm_demo.cli import main
from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig
from ddpm_demo.data import Images
from ddpm_demo.inference.generate import generate
from ddpm_demo.media.convert import cut, to_uint8
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.finetune import before, estimate, finetune, pictures, settings
from ddpm_demo.training.preview import preview
from ddpm_demo.training.run_folder import pace
from ddpm_demo.training.trainer import Trainer

NAMES = ("dark", "bright")


@pytest.fixture
def data():
    pixels = torch.cat([torch.full((40, 1, 8, 8), 30), torch.full((40, 1, 8, 8), 220)]).byte()
    return Images(pixels, torch.arange(80) // 40, NAMES)


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(
        size=8, channels=1, width=16, multipliers=(1, 2), attention=(4,), num_classes=2
    )
    info = {"classes": list(NAMES), "dataset": "folder:x", "sample": {"steps": 7}}
    save_checkpoint(tmp_path / "base", Checkpoint(UNet(config), DiffusionConfig(T=10), info))
    return load_checkpoint(tmp_path / "base")


def digest(folder):
    files = sorted(folder.glob("model*"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def same_weights(a, b):
    """Not the files' bytes: those also say how many seconds the runs took."""
    a, b = (load_tensors(folder / "model.safetensors")[0] for folder in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_loss_falls_and_the_base_stays(base, data, tmp_path):
    before, weights = digest(tmp_path / "base"), base.model.conv_in.weight.clone()
    bright = data.only("bright")
    config = settings(base, bright, batch_size=16, lr=3e-3, images=16 * 40, preview_every=160)
    progress = list(finetune(base, bright, config, tmp_path / "out"))
    reports = [p.report for p in progress if p.report]
    assert [p.images for p in progress if p.report] == [160, 320, 480, 640]
    assert reports[-1].train_loss < 0.8 * reports[0].train_loss
    assert digest(tmp_path / "base") == before
    assert torch.equal(base.model.conv_in.weight, weights)

    result = load_checkpoint(tmp_path / "out")
    assert result.info["base"] == "base"
    assert result.info["sample"] == {"steps": 7}
    assert result.classes == list(NAMES)
    *_, last = generate(result, SampleConfig(steps=10, n=4))
    assert last.x_t.isfinite().all()
    assert not torch.equal(result.model.conv_in.weight, weights)


def test_stopped_and_continued_is_as_unbroken(base, data, tmp_path):
    config = settings(base, data, batch_size=16, images=16 * 8)
    list(finetune(base, data, config, tmp_path / "whole"))
    steps = []
    parts = finetune(base, data, config, tmp_path / "parts", should_stop=lambda: len(steps) == 3)
    for progress in parts:
        steps.append(progress)
        if len(steps) == 3:
            continue
    assert steps[-1].images < 128
    list(finetune(base, data, config, tmp_path / "parts", resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("only", [None, "bright"])
def test_previews_are_of_no_class_where_the_data_is_of_one(base, data, only, filled):
    """So that the same seeds are seen to change; else the classes take turns."""
    filled(base.model)
    data = data.only(only) if only else data
    config = settings(base, data, batch_size=16, lr=3e-3, images=64)
    *_, last = finetune(base, data, config, bf16=False)
    first = before(base, data, bf16=False)
    assert torch.equal(first, preview(base.model, base.diffusion, by_class=only is None))
    assert not torch.equal(first, preview(base.model, base.diffusion, by_class=only is not None))
    assert not torch.equal(first, last.report.preview)


def test_another_class_or_base_is_another_run(base, data, tmp_path):
    def run(only, base, **options):
        part = data.only(only)
        config = settings(base, part, only=only, batch_size=16, images=32)
        return list(finetune(base, part, config, tmp_path / "out", **options))

    run("bright", base)
    with pytest.raises(ValueError, match=r"another run: train.only was 'bright' and is 'dark'"):
        run("dark", base, resume=True)
    assert not run(
        "bright", Checkpoint(base.model, base.diffusion, base.info, "moved"), resume=True
    )
    with torch.no_grad():
        next(base.model.parameters()).add_(1)
    with pytest.raises(ValueError, match="another run: the base has other weights now"):
        run("bright", base, resume=True)
    assert load_checkpoint(tmp_path / "out").info["train"]["only"] == "bright"


def test_a_run_of_epochs(base, data):
    config = settings(base, data, batch_size=16, epochs=1.3)
    assert pictures(config, data) == 104
    assert len(list(finetune(base, data, config))) == 7
    assert 0 < estimate(base, data, config) < 600


def test_a_film_takes_some_seconds_however_many_grids_it_has():
    for grids in range(1, 61):
        assert 0.9 <= (grids + 1) / pace(grids) <= 5
    assert pace(10**6) == 15


def test_the_estimate_is_of_this_machine_and_trains_nothing(base, data):
    config = settings(base, data, batch_size=16, images=1600)
    weights = base.model.conv_in.weight.clone()
    assert 0 < estimate(base, data, config) < 600
    assert torch.equal(base.model.conv_in.weight, weights)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"lr": 0}, "lr must be .*, not 0"),
        ({"lr": 10}, "lr must be .*, not 10"),
        ({"batch_size": 81}, "batch_size must be .*, not 81"),
        ({"images": None}, "Length of the run must be a number of"),
    ],
)
def test_settings_that_make_no_sense(base, data, values, word):
    with pytest.raises(ValueError, match=word):
        settings(base, data, **({"images": 100, "batch_size": 16} | values))


def test_other_pictures_than_the_models(base, data):
    colour = Images(data.pixels.expand(-1, 3, -1, -1), data.labels, NAMES)
    with pytest.raises(ValueError, match="Shape of the pictures must be"):
        settings(base, colour, images=100, batch_size=16)
    renamed = Images(data.pixels, data.labels, ("cat", "dog"))
    with pytest.raises(ValueError, match=r"Classes of the data must be .*, not 'cat, dog'"):
        settings(base, renamed, images=100, batch_size=16)
    with pytest.raises(ValueError, match=r"Class must be .*, not 'ship'"):
        data.only("ship")


def test_too_little_memory_halves_the_batch(base, data, monkeypatch):
    tried, said = [], []

    def train(_base, _diffusion, config, *_args, **_options):
        tried.append(config.batch_size)
        if config.batch_size > most:
            raise torch.OutOfMemoryError
        yield "a step"

    monkeypatch.setattr("ddpm_demo.training.finetune.train", train)
    most, config = 4, settings(base, data, batch_size=16, images=100)
    assert list(finetune(base, data, config, say=said.append)) == ["a step"]
    assert tried == [16, 8, 4]
    assert said[-1] == "A batch of 8 does not fit into the GPU's memory; going on with 4."
    most = 0
    with pytest.raises(ValueError, match="one picture does not fit"):
        list(finetune(base, data, config, say=said.append))


# The command line


@pytest.fixture
def shell(base, data, tmp_path, monkeypatch):
    """Runs a command beside the base, on the made-up pictures as the data set "mnist"."""
    load = d.load

    def made_up(dataset, *args, **options):
        return data if dataset == "mnist" else load(dataset, *args, **options)

    monkeypatch.setattr(d, "load", made_up)
    monkeypatch.chdir(tmp_path)

    def run(line):
        try:
            return main(line.split())
        except SystemExit as left:
            return int(left.code or 0)

    return run


LINE = "finetune --model base --dataset mnist --class bright --batch-size 16 --lr 3e-3 --every 5"


def test_the_command_tunes_and_its_result_samples(shell, tmp_path):
    before = digest(tmp_path / "base")
    assert shell(f"{LINE} --steps 20 --out out") == 0
    assert digest(tmp_path / "base") == before
    log = [json.loads(row) for row in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [5, 10, 15, 20]
    assert log[-1]["train"] < 0.9 * log[0]["train"]
    with Image.open(tmp_path / "out" / "morph.gif") as film:
        assert film.n_frames == 5  # before, and the four grids
        assert film.info["duration"] == 500
    with Image.open(tmp_path / "out" / "preview-000000000.png") as sheet:
        first = cut(np.asarray(sheet), 16, scale=4)[..., :1]
    base = load_checkpoint("base")  # which is not asked for a class, as the data is of one
    assert np.array_equal(first, to_uint8(preview(base.model, base.diffusion)))
    assert shell("sample --model out --class bright --steps 4 -n 2 --out a.png") == 0
    assert shell(f"{LINE} --steps 20 --out out") == 2  # not over a run


def test_the_command_stopped_by_a_signal_goes_on_as_unbroken(shell, tmp_path, monkeypatch, capsys):
    assert shell(f"{LINE} --steps 20 --out whole") == 0
    advance = Trainer.advance

    def interrupted(self, lr):
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, lr)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        assert shell(f"{LINE} --steps 20 --out parts") == 0
    assert "Stopped and saved; go on with --resume" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "parts").info["images"] == 7 * 16
    assert shell(f"{LINE} --steps 20 --out parts --resume") == 0
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("words", "steps", "batch"),
    [("", 40, 16), ("--epochs 0.5", 3, 16), ("--steps 2 --batch-size 4", 2, 4)],
)
def test_how_long_the_command_runs(shell, words, steps, batch, tmp_path):
    """On a CPU a minute or so, unless it is told otherwise."""
    line = f"finetune --model base --dataset mnist --device cpu --out out {words}"
    assert shell(line) == 0
    info = load_checkpoint(tmp_path / "out").info
    assert (info["images"], info["train"]["batch_size"]) == (steps * batch, batch)
    grids = len(list((tmp_path / "out").glob("preview-*.png"))) - 1
    assert grids == min(8, steps)


def test_a_disk_that_is_full_loses_nothing_of_the_command(shell, tmp_path, monkeypatch, capsys):
    assert shell(f"{LINE} --steps 20 --out whole") == 0
    replace, left = os.replace, 9  # the first grid, and two times state, weights, log and grid

    def full(source, target):
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert shell(f"{LINE} --steps 20 --out parts") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("state.safetensors was not written: No space left on device.")
    assert load_checkpoint(tmp_path / "parts").info["images"] == 10 * 16
    assert shell(f"{LINE} --steps 20 --out parts --resume") == 0
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_the_command_pushes_its_result(shell, tmp_path, monkeypatch, capsys):
    pushed = []

    def push(file, repo):
        pushed.append((repo, load_checkpoint(file)))
        return f"https://huggingface.co/{repo}"

    monkeypatch.setattr("ddpm_demo.publishing.push.push", push)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert shell(f"{LINE} --steps 2 --out out --push me/net") == 2
    assert "No Hugging Face login here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert shell(f"{LINE} --steps 2 --out out --push me/net") == 0
    assert "Pushed to https://huggingface.co/me/net" in capsys.readouterr().out
    ((repo, result),) = pushed
    assert repo == "me/net"
    trained = load_checkpoint(tmp_path / "out").model.state_dict()
    for name, weight in result.model.state_dict().items():
        assert torch.equal(weight, trained[name].half().float())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 2", "not allowed with argument --steps"),
        ("--class ship", "Class must be dark or bright, not 'ship'."),
        (
            "--class bright --batch-size 41",
            "batch_size must be a whole number from 1 to 40 (the number of pictures), not 41.",
        ),
        ("--batch-size 0", "batch_size must be"),
        ("--device tpu", "Device must be auto"),
        ("--model colour", "Shape of the pictures must be (3,"),
        ("--lr 0", "lr must be"),
        ("--lr 10", "lr must be"),
        ("--steps 0", "Steps must be"),
        ("--every 0", "Every must be"),
        ("--model other", "Shape of the pictures must be"),
        ("--model renamed.safetensors", "renamed.safetensors is not a whole safetensors file"),
        ("--model nobody", "There is no model 'nobody'"),
    ],
)
def test_a_bad_argument_is_one_line_and_code_2(shell, words, message, tmp_path, capsys):
    small = {"width": 16, "multipliers": (1, 2), "attention": (8,)}
    for name, shape in (("other", (16, 1)), ("colour", (8, 3))):
        config = ModelConfig(*shape, **small)
        save_checkpoint(tmp_path / name, Checkpoint(UNet(config), DiffusionConfig(T=20), {}))
    torch.save({"a": torch.zeros(2)}, tmp_path / "renamed.safetensors")
    assert shell(f"finetune --model base --dataset mnist --steps 2 --out out {words}") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_without_data_or_network(shell, tmp_path, monkeypatch, capsys):
    from torchvision import datasets

    def fail(*_args, **_options):
        raise OSError("<urlopen error: no network>")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fail)
    place = tmp_path / "data"
    line = f"finetune --model base --dataset cifar10 --data-dir {place} --steps 2 --out out"
    assert shell(line) == 2
    said = capsys.readouterr().err
    assert f"cifar10 is not in {place}, or not whole, and can't be downloaded" in said
    assert said.count("\n") == 1
    assert shell("finetune --model base --dataset folder:nowhere --steps 2 --out out") == 2
    assert "There is no folder nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_survives_too_little_memory(shell, tmp_path, monkeypatch, capsys):
    advance = Trainer.advance

    def short(self, lr):
        if self.config.batch_size > 4:
            raise torch.OutOfMemoryError
        return advance(self, lr)

    monkeypatch.setattr(Trainer, "advance", short)
    assert shell(f"{LINE} --steps 2 --out out") == 0
    assert "A batch of 8 does not fit into the GPU's memory; going on with 4." in (
        capsys.readouterr().out
    )
    assert load_checkpoint(tmp_path / "out").info["train"]["batch_size"] == 4
