"""The folder of a run: the same files whoever writes them, the same run whatever it is called."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.cli import main
from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig
from ddpm_demo.data import NO_LABEL, Images, load
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.finetune import finetune, settings
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.train import train, with_classes
from ddpm_demo.training.trainer import Trainer

SMALL: dict[str, Any] = {"size": 8, "width": 8, "multipliers": (1, 2), "attention": (4,)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i:02}.png")
    return folder


def go(folder: Path, out: Path, steps: int, resume: bool = False) -> list[Any]:
    words = f"folder:{folder}"
    config = TrainConfig(words, batch_size=4, warmup=2, decay=0, images=4 * steps, preview_every=8)
    model, process = ModelConfig(**SMALL, time_dim=16), DiffusionConfig(10)
    return list(train(model, process, config, load(words, size=8), out, resume=resume, bf16=False))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out).model.state_dict()


def test_moved_and_renamed_pictures_are_the_same_run(pictures: Path, tmp_path: Path) -> None:
    go(pictures, tmp_path / "whole", 6)
    go(pictures, tmp_path / "parts", 3)
    moved = pictures.rename(tmp_path / "elsewhere")
    for i, path in enumerate(sorted(moved.iterdir())):
        path.rename(moved / f"{(5 * i) % 12:02}-renamed.png")  # in another order
    go(moved, tmp_path / "parts", 6, resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


@pytest.mark.parametrize(("gone", "new"), [(6, 0), (0, 2), (1, 1)])
def test_other_pictures_are_another_run(
    gone: int, new: int, pictures: Path, tmp_path: Path
) -> None:
    go(pictures, tmp_path / "out", 3)
    for path in sorted(pictures.iterdir())[:gone]:
        path.unlink()
    for i in range(new):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(pictures / f"new {i}.png")
    with pytest.raises(CheckpointError) as caught:
        go(pictures, tmp_path / "out", 6, resume=True)
    said = str(caught.value)
    assert f"of its 12, {gone} are gone, and {new} are new" in said
    assert "Put them back" in said
    assert "\n" not in said


def test_a_state_from_before_is_taken_by_its_words(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpm_demo.training import state

    save = state.save_tensors
    old = lambda file, tensors, about: save(  # noqa: E731
        file, {k: v for k, v in tensors.items() if k != state.PICTURES}, about
    )
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_tensors", old)
        go(pictures, tmp_path / "out", 3)
    assert [p.step for p in go(pictures, tmp_path / "out", 4, resume=True)] == [4]
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_tensors", old)
        go(pictures, tmp_path / "other", 3)
    moved = pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"train\.dataset was"):
        go(moved, tmp_path / "other", 4, resume=True)


def test_a_report_that_comes_again_has_one_line(tmp_path: Path) -> None:
    folder, preview = RunFolder(tmp_path / "run"), torch.zeros(16, 1, 8, 8)
    folder.path.mkdir()
    for seen in (4, 8, 12, 8):  # killed after the line of 12, before its state was there
        folder.add({"images": seen, "train": 0.5}, preview)
    assert [row["images"] for row in folder.rows()] == [4, 8]
    folder.log.write_text("{")
    with pytest.raises(ValueError, match=r"log\.jsonl is garbled"):
        folder.rows()


def test_a_place_to_write_is_tried_before_any_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "file").write_text("")
    line = f"train --dataset folder:{pictures} --images 4 --out"
    assert main([*line.split(), str(tmp_path / "file" / "run")]) == 2
    assert "must be a folder, not" in capsys.readouterr().err

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr("ddpm_demo.data.load", lambda *_, **__: pytest.fail("it read the data"))
    for command in (line, f"finetune --model mnist --dataset folder:{pictures} --steps 2 --out"):
        assert main([*command.split(), str(tmp_path / "deep" / "run")]) == 2
        said = capsys.readouterr().err
        assert f"Nothing can be written in {tmp_path / 'deep' / 'run'}: Read-only file" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "deep").exists()


# Pictures without classes


def test_no_label_is_the_null_class(tiny: Callable[..., Checkpoint], tmp_path: Path) -> None:
    base = tiny(num_classes=3)
    data = Images(torch.zeros(8, 1, 8, 8).byte(), torch.full((8,), NO_LABEL))
    config = settings(base, data, batch_size=4, images=8, label_dropout=0.1)
    seen = []
    advance = Trainer.losses

    def spy(self: Trainer, net: Any, *batch: torch.Tensor) -> torch.Tensor:
        seen.extend(batch[-1].tolist())
        return advance(self, net, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "losses", spy)
        list(finetune(base, data, config, tmp_path / "out", held_out=data, bf16=False))
    assert set(seen) == {3}
    assert load_checkpoint(tmp_path / "out").classes == base.classes


# What --init overrides


def command(words: str, out: Path, folder: Path) -> int:
    line = f"train --dataset folder:{folder} --batch-size 4 --images 4 --no-bf16 --device cpu"
    return main([*line.split(), *words.split(), "--out", str(out)])


def test_what_is_said_overrides_the_process_of_init(
    tiny: Callable[..., Checkpoint], pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    base = tiny(T=20, schedule="linear", channels=3, predict="v")
    base.info["sample"] = {"start": 19, "steps": 5}
    save_checkpoint(tmp_path / "base", base)
    init = f"--init {tmp_path / 'base'}"
    assert command(init, tmp_path / "same", pictures) == 0
    same = load_checkpoint(tmp_path / "same")
    assert same.diffusion == base.diffusion
    assert same.info["sample"] == base.info["sample"]
    assert (same.info["init"], "base" in same.info) == ("base", False)
    assert command(f"{init} --noise laplace --timesteps 30", tmp_path / "other", pictures) == 0
    other = load_checkpoint(tmp_path / "other")
    assert other.diffusion == DiffusionConfig(30, "linear", noise="laplace", predict="v")
    assert "sample" not in other.info  # t = 19 of 20 is another t of 30
    assert other.model.config == base.model.config
    for words, says in (
        ("--width 16", "Width must be left out with --init: the network is the base's."),
        ("--paper", "Paper must be left out with --init"),
        ("--size 16", "--size with --init must be 8, not 16"),
        ("--grey", "--grey must be left out with --init"),
        ("--class-conditional", "--class-conditional must be left out: the data has no classes"),
    ):
        capsys.readouterr()
        assert command(f"{init} {words}", tmp_path / "no", pictures) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_a_base_without_classes_can_learn_them(
    tiny: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    base = tiny(channels=3)
    more = with_classes(base, 2)
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([1, 5, 9])
    assert torch.equal(more.model(x, t, torch.arange(3)), base.model(x, t))
    data = Images(torch.randint(0, 256, (9, 3, 8, 8)).byte(), torch.arange(9) % 2, ["cat", "dog"])
    config = TrainConfig(batch_size=3, images=6, decay=0, warmup=1, ema=0)
    list(train(more, base.diffusion, config, data, tmp_path / "out", bf16=False))
    taught = load_checkpoint(tmp_path / "out")
    assert taught.classes == ["cat", "dog"]
    assert len({tuple(row) for row in taught.model.class_embedding.weight.tolist()}) == 3


def test_it_is_said_beforehand_what_cannot_be_exported(
    pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    small = "--size 8 --width 32 --multipliers 1,2 --timesteps 10"
    assert command(small, tmp_path / "layer", pictures) == 0
    assert "--norm group makes one that it can write" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "layer"), str(tmp_path / "a")]) == 2
    capsys.readouterr()
    assert command(f"{small} --norm group", tmp_path / "group", pictures) == 0
    assert "export" not in capsys.readouterr().err
    assert main(["export", str(tmp_path / "group"), str(tmp_path / "b")]) == 0


# What leaves this machine


def test_no_place_on_the_disk_is_in_a_shipped_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpm_demo.publishing import cards
    from ddpm_demo.publishing.ship import ship

    monkeypatch.setattr(cards, "SHOWN", 2)
    go(pictures, tmp_path / "run", 2)
    assert str(tmp_path) in json.dumps(load_checkpoint(tmp_path / "run").info)  # for --resume
    ship(tmp_path / "run", tmp_path / "shipped", cards.Story("abc", "Tiny."), sample={"steps": 2})
    for file in (tmp_path / "shipped").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
        assert b"/pictures" not in file.read_bytes(), file.name
    assert load_checkpoint(tmp_path / "shipped").info["dataset"] == "folder:pictures"
    assert "--dataset folder:pictures" in (tmp_path / "shipped" / "README.md").read_text()
