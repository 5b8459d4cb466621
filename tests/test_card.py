"""A shipped model is its weights, its card, and nothing that can't be made again."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm_demo import card
from ddpm_demo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ddpm_demo.config import TrainConfig
from ddpm_demo.generate import defaults


@pytest.fixture
def run(tmp_path: Path, tiny: Callable[..., Checkpoint]) -> Path:
    folder, checkpoint = tmp_path / "run", tiny()
    checkpoint.info = {
        "dataset": "mnist",
        "images": 12_345,
        "seconds": 1800,
        "train": dataclasses.asdict(TrainConfig(lr=5e-4, minutes=30)),
    }
    save_checkpoint(folder, checkpoint)
    lines = [
        {"images": n, "train": 1 / n, "held_out": 2 / n, "loss_by_t": [0.5] * 9 + [None]}
        for n in (100, 12_345)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_ship(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "SHOWN", 4)
    folder = tmp_path / "tiny"
    shipped = card.ship(
        run, folder, commit="abc123", limits="It is tiny.", sample={"start": 7, "steps": 2}
    )

    trained = load_checkpoint(run).model.state_dict()
    for name, weight in shipped.model.state_dict().items():
        assert torch.equal(weight, trained[name].half().float()), name
    assert defaults(load_checkpoint(folder)).start == 7
    text = (folder / "README.md").read_text()
    for said in ("12,345", "0.50 hours", "--lr 0.0005", "--minutes 30", "abc123", "It is tiny."):
        assert said in text
    with Image.open(folder / "samples.png") as grid:
        assert grid.text["start"] == "7"
    assert (folder / "loss.svg").read_text().count("<polyline") == 2


def test_a_fine_tuned_copy_names_its_base_and_shows_its_film(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Checkpoint]
) -> None:
    monkeypatch.setattr(card, "SHOWN", 4)
    tuned = tiny(num_classes=3)
    tuned.info |= load_checkpoint(run).info | {"base": "net", "images": 640}
    save_checkpoint(run, tuned)
    Image.new("RGB", (8, 8)).save(run / "morph.gif")
    folder = tmp_path / "net-cat"
    card.ship(run, folder, commit="abc123", limits="It is tiny.", sample={"steps": 2})
    text = (folder / "README.md").read_text()
    assert "[`net`](../net/README.md)" in text
    assert "ddpm_demo finetune --model net --class cat --steps 10 --batch-size 64" in text
    assert "(morph.gif)" in text
    assert (folder / "morph.gif").read_bytes() == (run / "morph.gif").read_bytes()
    assert "a row each" not in text
