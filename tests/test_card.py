"""A shipped model is its weights, its card, and nothing that can't be made again."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm_demo.cli import main, parser
from ddpm_demo.cli.training import configs, network
from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig
from ddpm_demo.models.checkpoint import Checkpoint, digest, save_checkpoint, save_tensors
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.publishing import cards
from ddpm_demo.publishing.cards import MEAN, Story
from ddpm_demo.publishing.ship import ship
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.trainer import wide

STORY = Story("abc123", "It is tiny.", "Stopped once.")
ROWS = [
    {"sampler": "unipc", "spacing": "trailing", "steps": 8, "calls": 8, "distance": 1.25, "n": 500},
    {"sampler": "ddpm", "spacing": "uniform", "steps": 50, "calls": 50, "distance": 0.5, "n": 500},
]


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
    monkeypatch.setattr(cards, "SHOWN", 4)
    folder = tmp_path / "tiny"
    shipped = ship(run, folder, STORY, sample={"start": 7, "steps": 2}, samplers=ROWS)

    trained = load_checkpoint(run).model.state_dict()
    for name, weight in shipped.model.state_dict().items():
        assert torch.equal(weight, trained[name].half().float()), name
    assert load_checkpoint(folder).best.start == 7
    assert load_checkpoint(folder).info["samplers"] == ROWS
    text = (folder / "README.md").read_text()
    for said in ("12,345", "0.50 hours", "--lr 0.0005", "--minutes 30", "abc123", "It is tiny."):
        assert said in text
    with Image.open(folder / "samples.png") as grid:
        assert grid.text["start"] == "7"
    assert (folder / "loss.svg").read_text().count("<polyline") == 2


def test_an_average_of_another_width_is_shipped(run: Path, tmp_path: Path) -> None:
    own = {k: 2 * v for k, v in load_checkpoint(run).model.state_dict().items()}
    save_tensors(RunFolder(run).state, {f"ema-0.05.{k}": v for k, v in own.items()}, {})
    shipped = ship(run, tmp_path / "tiny", STORY, sample={"steps": 2}, kind=wide(0.05))
    for name, weight in shipped.model.state_dict().items():
        assert torch.equal(weight, own[name].half().float()), name
    assert "average `ema-0.05`" in (tmp_path / "tiny" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"one with the weights ema-0\.1,"):
        ship(run, tmp_path / "other", STORY, kind=wide(0.1))
    assert not (tmp_path / "other").exists()


def test_the_mean_of_first_and_last_weights_is_shipped(
    run: Path, zoo: Path, tmp_path: Path, tiny: Callable[..., Checkpoint]
) -> None:
    base = {"name": "tiny", "weights": digest(load_checkpoint("tiny").model)}
    save_tensors(RunFolder(run).state, {"x": torch.zeros(1)}, {"configs": {"base": base}})
    save_checkpoint(run, dataclasses.replace(tiny(seed=5), info=load_checkpoint(run).info))
    first, last = (load_checkpoint(k).model.state_dict() for k in ("tiny", run))
    words = ["ship", str(run), str(zoo / "mine"), "--mean", "--commit", "abc", "--limits", "Tiny."]
    assert main([*words, "--sample", '{"steps": 2}']) == 0
    for name, weight in load_checkpoint(zoo / "mine").model.state_dict().items():
        assert torch.allclose(weight, (first[name] + last[name]) / 2, atol=2e-3), name
    assert "halfway from those it started from" in (zoo / "mine" / "README.md").read_text()
    save_checkpoint(zoo / "tiny", tiny(seed=6))
    with pytest.raises(ValueError, match="Model that the run started from must be as it was then"):
        ship(run, zoo / "other", STORY, kind=MEAN)


def test_a_fine_tuned_copy_names_its_base_and_shows_its_film(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Checkpoint]
) -> None:
    monkeypatch.setattr(cards, "SHOWN", 4)
    tuned = tiny(num_classes=3)
    tuned.info |= load_checkpoint(run).info | {"base": "net", "images": 640}
    tuned.info["train"] |= {"only": "cat"}
    save_checkpoint(run, tuned)
    Image.new("RGB", (8, 8)).save(run / "morph.gif")
    folder = tmp_path / "net-cat"
    ship(run, folder, STORY, sample={"steps": 2})
    text = (folder / "README.md").read_text()
    assert "[`net`](../net/README.md)" in text
    assert "ddpm_demo finetune --model net --class cat --steps 10 --batch-size 64" in text
    assert "(morph.gif)" in text
    assert (folder / "morph.gif").read_bytes() == (run / "morph.gif").read_bytes()
    assert "a row each" not in text


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_card_is_made_again_from_the_shipped_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cards, "SHOWN", 4)
    zoo = tmp_path / "zoo"
    monkeypatch.setenv("DDPM_DEMO_MODELS", str(zoo))
    ship(run, zoo / "tiny", STORY, sample={"steps": 2}, samplers=ROWS)
    card = zoo / "tiny" / "README.md"
    assert "| unipc | trailing | 8 | 8 | 1.25 | 500 |" in card.read_text()
    assert "Stopped once." in card.read_text()
    card.write_text(card.read_text() + "\n## Evaluation\n\nMeasured: 1.234\n")
    before = files(zoo / "tiny")
    for name in ("samples.png", "loss.svg"):
        (zoo / "tiny" / name).unlink()
    assert main(["ship", "--all"]) == 0
    assert str(zoo / "tiny") in capsys.readouterr().out
    assert files(zoo / "tiny") == before
    ship(run, zoo / "tiny", STORY, sample={"steps": 2})  # maybe of other weights than the numbers
    assert "1.234" not in card.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ship", "RUN must be a folder"),
        ("ship run", "FOLDER must be"),
        ("ship run x", "--commit must be"),
        ("ship run x --commit a", "--limits must be"),
        ("ship run x --commit a --limits b --sample {", "--sample is not JSON"),
        ("ship run x --commit a --limits b --sample []", "--sample must be"),
        ('ship run x --commit a --limits b --sample {"stepps":3}', "no stepps"),
        (
            "ship run x --commit a --limits b --samplers rows.json",
            "Row of samplers must be one that has",
        ),
        (
            "ship nowhere x --commit a --limits b",
            "RUN must be the folder",
        ),
        ("ship run file --commit a --limits b", "FOLDER must be"),
        ("ship --all", "Log of the model must be"),
    ],
)
def test_what_cannot_be_shipped_is_one_sentence(
    words: str,
    says: str,
    run: Path,
    tmp_path: Path,
    zoo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("rows.json").write_text('[{"steps": 3}]')
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not Path("x").exists()


SETTINGS = (
    "--dataset mnist",
    "--dataset mnist --size 32 --noise laplace --loss l1 --timesteps 500 --epochs 70",
    "--dataset cifar10 --paper --schedule linear --lr 2e-4 --images 102400000 --decay 0",
    "--dataset cifar10 --class-conditional --width 96 --multipliers 1,2 --attention 16,8 --no-flip",
    "--dataset cifar10 --attention none --flip --beta-end 0.01 --schedule linear --blocks 2",
    "--dataset cifar10 --ema-rel 0.05,0.1",
    "--dataset 'folder:my photos' --grey --size 64 --predict v --weighting min-snr --norm group",
)


@pytest.mark.parametrize("line", SETTINGS)
def test_the_command_on_a_card_trains_the_same(line: str) -> None:
    def asked(words: list[str]) -> tuple[ModelConfig, DiffusionConfig, TrainConfig]:
        o = parser().parse_args(words)
        own, channels = (28, 1) if o.dataset == "mnist" else (32, 1 if o.grey else 3)
        model = network(o, o.size or own, channels, 10 if o.class_conditional else 0)
        return model, *configs(o)

    words = ["train", *shlex.split(line), "--minutes", "5", "--out", "runs/x"]
    model, process, train = wanted = asked(words)
    with torch.device("meta"):
        net = UNet(model)
    info = {"train": dataclasses.asdict(train)}
    said = shlex.split(cards.command(Checkpoint(net, process, info), "x"))
    assert said[:3] == ["python", "-m", "ddpm_demo"]
    assert asked(said[3:]) == wanted
