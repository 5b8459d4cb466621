"""The command line: what it writes, that seeds mean pictures, and one line for what is wrong."""

import argparse
import io
import itertools
import json
import math
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.cli import EXAMPLES, main, parser
from ddpm_demo.config import SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Denoiser, Noise, Schedule
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media import convert
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors, save_checkpoint, save_tensors
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.trainer import Trainer

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the models "tiny" and "classy"."""
    folder = zoo.parent / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(line: str, *more: object) -> int:
    try:
        return main([*line.split(), *map(str, more)])
    except SystemExit as left:  # argparse's own
        return int(left.code or 0)


def sample(line: str, out: str) -> Path:
    assert run(f"sample --model tiny --steps 4 -n 5 {line} --out {out}") == 0
    return Path(out)


def expected(n: int = 5, steps: int = 4, **settings: Any) -> np.ndarray:
    config = SampleConfig(steps=steps, n=n, **settings)
    *_, last = generate(load_checkpoint("tiny"), config)
    return convert.to_uint8(last.x_t)


def film(path: Path) -> np.ndarray:
    """(N, H, W, 3) frames."""
    plugin, index = ("pyav", ...) if path.suffix == ".mp4" else ("pillow", None)
    data = path.read_bytes()
    return iio.imread(data, extension=path.suffix, plugin=plugin, index=index)[..., :3]


# sample


def test_a_grid(here: Path, capsys: Capture) -> None:
    path = sample("--seed 3 --scale 2", "grid.png")
    assert capsys.readouterr().out == "grid.png\n"
    with Image.open(path) as image:
        assert image.text["seed"] == "3"  # type: ignore[attr-defined]
        assert image.text["model"] == "tiny"  # type: ignore[attr-defined]
        assert np.array_equal(np.array(image), convert.grid(expected(seed=3), scale=2))
    assert sorted(p.name for p in here.iterdir()) == ["grid.png"]


def test_an_archive() -> None:
    with np.load(sample("--seed 3", "samples.npz")) as file:
        pictures = file["arr_0"]
        about = json.loads(str(file["metadata"]))
    assert (pictures.dtype, pictures.shape) == (np.uint8, (5, 8, 8, 1))
    assert np.array_equal(pictures, expected(seed=3))
    assert (about["seed"], about["steps"], about["sampler"]) == ("3", "4", "ddim")


@pytest.mark.parametrize("steps", [4, 15])
def test_a_strip(steps: int) -> None:
    """Ten snapshots or all there are; the first is noise, and the last the sample."""
    path = sample(f"--steps {steps} --scale 3", "strip.png")
    strip = np.array(Image.open(path))
    frames = [
        convert.to_uint8(s.x_t)
        for s in generate(load_checkpoint("tiny"), SampleConfig(steps=steps, n=5))
    ]
    first, last = (convert.grid(f, scale=3) for f in (frames[0], frames[-1]))
    h, w, _ = first.shape
    shown = min(10, steps + 1)
    assert strip.shape[0] > h  # labels
    assert strip.shape[1] >= shown * w
    tiles = strip.shape[1] // shown  # with gaps

    def stands(tile: np.ndarray, columns: slice) -> bool:
        part = strip[:h, columns]
        windows = np.lib.stride_tricks.sliding_window_view(part, (h, w, 3)).reshape(-1, *tile.shape)
        return any(np.array_equal(tile, window) for window in windows)

    assert stands(first, slice(0, tiles + 8))
    assert stands(last, slice(strip.shape[1] - tiles - 8, None))


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_film(kind: str) -> None:
    path = sample("--seed 1 --steps 6 --scale 8", f"film.{kind}")
    frames = film(path)
    assert 7 <= len(frames) <= 7 + 25  # seven states; an MP4 repeats the last, to hold it
    sheet = convert.grid(expected(seed=1, steps=6), scale=8).astype(int)
    last = frames[-1][..., :3].astype(int)
    if kind == "gif":  # grey, so exact
        assert np.array_equal(last, sheet)
    else:  # perhaps enlarged, and compressed
        k = last.shape[0] // sheet.shape[0]
        big = sheet.repeat(k, 0).repeat(k, 1)
        assert np.abs(last[: big.shape[0], : big.shape[1]] - big).mean() < 12
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 10


def test_a_long_film_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film is kept in memory: of many steps, or in large frames, it has fewer of them."""
    whole = film(sample("--steps 16", "film.gif"))
    assert len(whole) == 17
    monkeypatch.setattr("ddpm_demo.cli.options.FILM_FRAMES", 5)
    assert np.array_equal(film(sample("--steps 16", "film.gif")), whole[::4])
    monkeypatch.setattr("ddpm_demo.cli.options.FILM_FRAMES", 300)
    monkeypatch.setattr("ddpm_demo.cli.options.FILM_BYTES", 13 * whole[0].nbytes)
    few = film(sample("--steps 16", "film.gif"))
    assert 10 <= len(few) <= 13
    assert np.array_equal(few[[0, -1]], whole[[0, -1]])


@pytest.mark.parametrize("out", ["grid.png", "strip.png", "film.gif", "samples.npz"])
def test_the_same_seed_gives_the_same_bytes(out: str) -> None:
    first = sample("--seed 5", out).read_bytes()
    assert sample("--seed 5", out).read_bytes() == first
    assert sample("--seed 6", out).read_bytes() != first


def test_pages_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.load(sample("-n 7 --sampler ddpm", "a.npz"))["arr_0"]
    monkeypatch.setattr("ddpm_demo.cli.sampling.PAGE", 3)
    paged = np.load(sample("-n 7 --sampler ddpm", "b.npz"))["arr_0"]
    assert np.abs(whole.astype(int) - paged).max() <= 1  # rounding of float32
    alone = np.load(sample("-n 1 --seed 4 --sampler ddpm", "c.npz"))["arr_0"]
    assert np.abs(whole[4].astype(int) - alone[0]).max() <= 1


def test_options_arrive() -> None:
    given = "--sampler ddpm --variance beta --spacing quadratic --no-clip --seed 2"
    got = np.load(sample(given, "a.npz"))["arr_0"]
    wanted = expected(sampler="ddpm", variance="beta", spacing="quadratic", clip=False, seed=2)
    assert np.array_equal(got, wanted)
    got = np.load(sample("--sampler ddim --eta 0.5", "a.npz"))["arr_0"]
    assert np.array_equal(got, expected(eta=0.5))


def test_classes_by_name_and_number() -> None:
    def drawn(*label: str) -> np.ndarray:
        assert run("sample --model classy --steps 3 -n 9 --out a.npz", *label) == 0
        return np.load("a.npz")["arr_0"]

    named = drawn("--class", "kind 1")
    assert json.loads(str(np.load("a.npz")["metadata"]))["class"] == "kind 1"
    assert np.array_equal(named, drawn("--class", "1"))
    assert not np.array_equal(named, drawn("--class", "kind 2"))
    assert np.array_equal(drawn("--class", "0,1,2"), drawn())
    assert np.array_equal(drawn("--class", "each"), drawn())
    assert not np.array_equal(drawn("--class", "any"), drawn())
    assert np.array_equal(drawn("--class", "kind 0,kind 1")[:2], drawn()[:2])
    assert not np.array_equal(named, drawn("--class", "1", "--guidance", "5"))


def test_a_model_by_its_file(tiny: Callable[..., Checkpoint]) -> None:
    file = save_checkpoint(Path("run"), tiny())
    by_name = sample("", "a.npz").read_bytes()
    for path in (file, file.parent):
        assert run(f"sample --model {path} --steps 4 -n 5 --out b.npz") == 0
        got, wanted = (np.load(f)["arr_0"] for f in ("b.npz", "a.npz"))
        assert np.array_equal(got, wanted)
    assert by_name


# from a picture


@pytest.fixture
def small(here: Path) -> torch.Tensor:
    """What the model sees of "photo.png"; "mask.png" beside it is white in its upper half."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(np.repeat(np.uint8([255, 0]), 32).reshape(8, 8)).save("mask.png")
    return convert.to_tensor(pixels[None, :, :, None])


def numbers_of(out: str) -> np.ndarray:
    with np.load(out) as data:
        return np.asarray(data["arr_0"])


def test_a_run_begins_with_a_picture(small: torch.Tensor) -> None:
    """It is a plain run from the noised picture (SDEdit); from t = 1 the picture stays."""
    checkpoint = load_checkpoint("tiny")
    schedule = Schedule.from_config(checkpoint.diffusion)
    sample("--from photo.png --start 9 --seed 70", "nine.npz")
    eps = Noise("gaussian", range(70, 75)).draw((5, 1, 8, 8))
    noised = schedule.q_sample(small.expand(5, -1, -1, -1), 9, eps)
    config = SampleConfig(n=5, seed=70, steps=4, start=9)
    denoise = Denoiser(checkpoint.model, checkpoint.diffusion)
    noise = Noise("gaussian", range(70, 75))
    *_, last = SAMPLERS["ddim"](denoise, noised, schedule.chosen(config), noise=noise)
    found = numbers_of("nine.npz").astype(int)
    assert np.abs(found - convert.to_uint8(last.x_t)).max() <= 1

    assert run("sample --model tiny --from photo.png --start 1 -n 2 --out one.npz") == 0
    sigma = float(1 - schedule.alpha_bar[1]) ** 0.5
    apart = numbers_of("one.npz").astype(int) - convert.to_uint8(small)
    assert np.abs(apart).max() < 6 * sigma * 127.5


def test_a_part_of_a_picture_is_made_anew(small: torch.Tensor) -> None:
    for more in ("--resample 3", "--start 15"):
        sample(f"--from photo.png --mask mask.png {more}", "part.npz")
        found = numbers_of("part.npz")
        assert (found[:, 4:, :, 0] == convert.to_uint8(small)[0, 4:, :, 0]).all()
        assert len({picture[:4].tobytes() for picture in found}) == 5
    sample("--from photo.png --mask mask.png", "part.png")
    with Image.open("part.png") as image:
        spec = RunSpec.from_metadata(image.text)
    assert spec.interventions[0].startswith("keep=1:")
    assert len(spec.pictures) == 1
    sample("--from photo.png --mask mask.png --resample 2", "part.html")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--mask mask.png", "--mask must be given with --from"),
        ("--from photo.png", "--from must be given with --start"),
        ("--from photo.png --start 5 --resample 2", "--resample must be given with --mask."),
        ("--from photo.png --start 99", "Start must be"),
        ("--from photo.png --start 5 --steps 6", "Steps must be"),
        ("--from photo.png --start 5 --timesteps 5,1", "--timesteps must be left out with --from"),
        ("--from none.png --start 5", "'none.png' cannot be read"),
        ("--from photo.png --mask dark.png", "Mask must be"),
        ("--from photo.png --mask mask.png --resample 21", "Keep must be"),
    ],
)
def test_a_picture_that_cannot_be_used_is_one_line(
    small: torch.Tensor, capsys: Capture, line: str, said: str
) -> None:
    Image.new("L", (8, 8)).save("dark.png")
    assert run(f"sample --model tiny -n 2 {line} --out no.png") == 2
    words = capsys.readouterr().err
    assert said in words
    assert words.count("\n") == 1
    assert not Path("no.png").exists()


# noise


@pytest.fixture
def photo(here: Path) -> Path:
    """In another folder, as the commands' output is looked at in this one."""
    pixels = np.linspace(0, 255, 24 * 16 * 3).reshape(16, 24, 3).astype(np.uint8)
    Image.fromarray(pixels).save(path := here.parent / "photo.png")
    return path


def test_noise_strip(photo: Path) -> None:
    line = "noise --size 16 --schedule cosine --timesteps 50 --noise laplace --seed 3 --t 1,20,50"
    assert run(f"{line} --out strip.png --image", photo) == 0
    x_0 = convert.to_tensor(np.array(convert.square(open_image(photo), 16))[None])
    eps = Noise("laplace", [3]).draw(x_0.shape)
    table = Schedule.cosine(50)
    frames = [convert.to_uint8(table.q_sample(x_0, t, eps))[0] for t in (0, 1, 20, 50)]
    wanted = convert.strip(frames, ["t = 0", "t = 1", "t = 20", "t = 50"])
    with Image.open("strip.png") as strip:
        assert np.array_equal(np.array(strip), wanted)
        assert strip.text["t"] == "1,20,50"  # type: ignore[attr-defined]
        assert strip.text["schedule"] == "cosine"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["gif", "mp4"])
@pytest.mark.parametrize("chain", ["", "--chain"])
def test_noise_film(kind: str, chain: str, photo: Path) -> None:
    assert run(f"noise --size 16 --timesteps 30 {chain} --out film.{kind} --image", photo) == 0
    frames = film(Path(f"film.{kind}"))
    assert len(frames) >= 31
    clean = np.array(convert.square(open_image(photo), 16)).astype(int)
    k = frames[0].shape[0] // 16
    assert np.abs(frames[0][: 16 * k : k, : 16 * k : k, :3].astype(int) - clean).mean() < 12
    assert np.abs(frames[-1][: 16 * k : k, : 16 * k : k, :3].astype(int) - clean).mean() > 12


# models


def test_models(capsys: Capture) -> None:
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["classy", "tiny"]
    assert "1 x 8 x 8" in lines[1]
    assert "cosine, T = 20, gaussian noise, 123 images seen" in lines[1]
    assert "3 classes" in lines[0]
    assert run("models --json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["classy", "tiny"]
    assert rows[0]["classes"] == ["kind 0", "kind 1", "kind 2"]


# train


@pytest.fixture
def folder(here: Path) -> Path:
    path = here.parent / "pictures"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path / f"{i}.png")
    (path / "broken.jpg").write_bytes(b"broken")
    return path


SMALL = (
    "--size 8 --width 8 --multipliers 1,2 --attention 4 --timesteps 10 --batch-size 4 "
    "--warmup 2 --decay 0 --no-bf16"
)


def test_training_is_tracked(
    folder: Path, here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"train --dataset folder:{folder} {SMALL} --images 8 --preview-every 4 --out run"
    monkeypatch.setitem(sys.modules, "trackio", None)  # not installed
    assert run(f"{line} --track digits") == 2
    assert "pip install trackio" in capsys.readouterr().err
    assert not Path("run").exists()

    trackio = Mock()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    assert run(f"{line} --track digits") == 0
    init = trackio.init.call_args.kwargs
    assert (init["project"], init["name"], init["config"]["batch_size"]) == ("digits", "run", "4")
    log = [json.loads(text) for text in Path("run/log.jsonl").read_text().splitlines()]
    reports = [c for c in trackio.log.call_args_list if "samples" in c.args[0]]
    for entry, call in zip(log, reports, strict=True):
        assert call.kwargs["step"] == entry["step"]
        assert call.args[0]["train loss"] == entry["train"]
        assert call.args[0]["lr"] == entry["lr"]
    assert trackio.Image.call_args.args[0].dtype == np.uint8
    trackio.finish.assert_called_once_with()


def test_train_and_resume(folder: Path, here: Path, capsys: Capture) -> None:
    line = f"train --dataset folder:{folder} {SMALL} --grey --preview-every 8"
    assert run(f"{line} --images 24 --out whole") == 0
    said = capsys.readouterr().err
    assert "6 pictures of 1 x 8 x 8" in said
    assert "broken.jpg" in said
    assert sorted(p.name for p in Path("whole").iterdir()) == [
        "log.jsonl",
        "model.safetensors",
        *(f"preview-{n:09d}.png" for n in (8, 16, 24)),
        "state.safetensors",
    ]
    log = [json.loads(text) for text in Path("whole/log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in log] == [8, 16, 24]
    assert all(math.isfinite(row["train"]) and math.isfinite(row["held_out"]) for row in log)
    with Image.open("whole/preview-000000024.png") as preview:
        assert preview.size == (4 * (4 * 8 + 3),) * 2

    assert run(f"{line} --images 12 --out parts") == 0
    capsys.readouterr()
    assert run(f"{line} --images 24 --out parts") == 2  # not without being told to
    error = capsys.readouterr().err
    assert "--resume to go on with that run" in error
    assert error.count("\n") == 1
    assert run(f"{line} --images 24 --out parts --resume") == 0
    a, b = (load_tensors(Path(out) / "state.safetensors")[0] for out in ("whole", "parts"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) == 0

    assert run("sample --model whole --steps 4 -n 1 --out a.png") == 0
    tune = f"train --dataset folder:{folder} --batch-size 4 --images 4 --no-bf16 --init whole"
    assert run(f"{tune} --out tuned") == 0
    assert load_checkpoint("tuned").model.config == load_checkpoint("whole").model.config


def test_every_broken_picture_is_told_once(folder: Path, capsys: Capture) -> None:
    for i in range(6, 60):  # of so many pictures some are held out, and of these some are broken
        (folder / f"{i}.png").write_bytes(b"")
    assert run(f"train --dataset folder:{folder} {SMALL} --images 4 --out run") == 0
    said = capsys.readouterr().err
    assert [said.count(f"{os.sep}{i}.png: ") for i in range(60)] == 6 * [0] + 54 * [1]


def test_train_options_arrive(folder: Path) -> None:
    line = (
        f"train --dataset folder:{folder} {SMALL} --images 4 --out run --blocks 2 --norm group "
        "--width 32 --dropout 0.1 --schedule linear --beta-start 0.001 --beta-end 0.1 --predict v "
        "--noise laplace --loss huber --weighting min-snr --lr 2e-4 --ema 0.9 --seed 5 --flip "
        "--weight-decay 0.01 --beta2 0.95 --grad-clip 0.5 --label-dropout 0.2"
    )
    assert run(line) == 0
    got = load_checkpoint("run")
    model, process, config = got.model.config, got.diffusion, got.info["train"]
    assert (model.blocks, model.norm, model.width, model.dropout) == (2, "group", 32, 0.1)
    assert (model.size, model.channels, model.attention) == (8, 3, (4,))
    assert (process.T, process.schedule, process.predict, process.noise) == (
        10,
        "linear",
        "v",
        "laplace",
    )
    assert (process.beta_start, process.beta_end) == (0.001, 0.1)
    wanted = {
        "loss": "huber",
        "weighting": "min-snr",
        "lr": 2e-4,
        "ema": 0.9,
        "seed": 5,
        "flip": True,
        "weight_decay": 0.01,
        "beta2": 0.95,
        "grad_clip": 0.5,
        "label_dropout": 0.2,
        "dataset": f"folder:{folder}",
    }
    assert {k: config[k] for k in wanted} == wanted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    right, handlers = (
        Trainer.advance,
        [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
    )

    def advance(self: Trainer, lr: float) -> Any:
        if self.step == 2:
            signal.raise_signal(number)
        return right(self, lr)

    monkeypatch.setattr(Trainer, "advance", advance)
    line = f"train --dataset folder:{folder} {SMALL} --images 1e9 --out run"
    assert run(line) == 0
    assert "go on with --resume --out run" in capsys.readouterr().err
    assert load_tensors(Path("run/state.safetensors"))[1]["step"] == 3
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_diverged_run_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    nan = torch.tensor([torch.nan] * 4)
    monkeypatch.setattr(Trainer, "losses", lambda self, *_: nan * self.model.conv_out.bias.sum())
    assert run(f"train --dataset folder:{folder} {SMALL} --images 99 --out run") == 1
    assert "The loss is nan" in capsys.readouterr().err.splitlines()[-1]


# What is wrong


def spoil(zoo: Path) -> None:
    """Models "nan", "cut", which lacks a parameter, and "wrong", whose configuration is no good."""
    state, about = load_tensors(zoo / "tiny" / "model.safetensors")
    nan = state["conv_out.bias"] * torch.nan
    save_tensors(zoo / "nan" / "model.safetensors", state | {"conv_out.bias": nan}, about)
    wrong = about | {"model": about["model"] | {"width": "wide"}}
    save_tensors(zoo / "wrong" / "model.safetensors", state, wrong)
    del state["conv_in.weight"]
    save_tensors(zoo / "cut" / "model.safetensors", state, about)


def bomb() -> bytes:
    """A PNG that says it has 30,000 x 30,000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


BAD = {
    "sample": [
        ("--sampler euler", "'euler'"),
        ("--start 21", "Start must be a whole number from "),
        ("--steps 0", "Steps must be a whole number from 1"),
        ("--steps 21", "Steps must be a whole number from 1 to 20, not 21."),
        ("--steps many", "'many'"),
        ("-n 0", "n must be"),
        ("--seed -1", "Seed must be a whole number from 0"),
        ("--seed 4294967296", "Seed must be"),
        ("--seed 4294967295 -n 2", "Seed must be"),
        ("--eta 1.5", "Eta must be a number from 0 to 1, not 1.5."),
        ("--eta nan", "Eta must be"),
        ("--guidance -1", "Guidance must be"),
        ("--variance learned", "'learned'"),
        ("--spacing log", "'log'"),
        ("--class 1", "Class must be any, not '1': the model has no classes."),
        ("--class each", "Class must be any, not 'each': the model has no classes."),
        ("--model nothing", "There is no model 'nothing'"),
        (
            "--model classy --class 3",
            "Class must be each, any, or with commas some of 0 to 2, kind 0, kind 1, kind 2",
        ),
        ("--model nan", "holds NaN"),
        ("--model cut", "conv_in.weight is missing"),
        ("--model wrong", "Width must be a whole number from 8 to 1,024, not 'wide'."),
        (
            "--scale 64 --out film.gif -n 256",
            "Size of --out must be at most 35,791,394 pixels, not",
        ),
        ("--scale 64 -n 100000", "Size of --out must be at most"),
        ("--device tpu", "Device must be auto"),
        ("--device cpu:x", "Device must be"),
        ("--out a.txt", "Suffix of --out must be .png, .gif, .mp4"),
        ("--out nowhere/a.png", "Folder of --out must be"),
        ("--out film.gif -n 257", "n must be at most 256 for a film or strip, not 257."),
        ("--scale 0", "Scale must be"),
        ("--nonsense", "--nonsense"),
    ],
    "noise": [
        ("--image none.png", "none.png"),
        ("--image {here}", "cannot be read"),
        ("--image {empty}", "is empty"),
        ("--image {text}", "not a picture"),
        ("--image {cut}", "damaged"),
        ("--image {bomb}", "has more than the 64,000,000 pixels allowed"),
        ("--image {large}", "is larger than the 20 MB allowed"),
        ("--image {photo} --t", "expected one argument"),
        (
            "--image {photo} --t 0",
            "'0' is not a timestep; each is a whole number from 1 to T = 1000.",
        ),
        ("--image {photo} --t 5,1001", "'1001' is not a timestep"),
        ("--image {photo} --t 1,x,3", "'x' is not a timestep"),
        ("--image {photo} --t ,", "The list of timesteps is empty"),
        ("--image {photo} --t 1.5", "'1.5' is not a timestep"),
        ("--image {photo} --t=-5", "'-5' is not a timestep"),
        ("--image {photo} --t " + ",".join(["1"] * 41), "41 timesteps; at most 40 are allowed."),
        ("--image {photo} --timesteps 9", "T must be a whole number from 10 to 4,000, not 9."),
        ("--image {photo} --timesteps 4001", "T must be"),
        ("--image {photo} --beta-end nan", "beta_end must be"),
        (
            "--image {photo} --beta-start 0.5",
            "beta_end must be a number from 0.5 to 0.999, not 0.02.",
        ),
        ("--image {photo} --size 7", "Size must be"),
        ("--image {photo} --size 99999", "Size must be"),
        ("--image {photo} --seed 99999999999999999999", "Seed must be"),
        ("--image {photo} --seed -1", "Seed must be"),
        ("--image {photo} --noise uniform", "'uniform'"),
        ("--image {photo} --out a.bmp", "Suffix of --out must be"),
        ("--image {photo} --out nowhere/a.gif", "Folder of --out must be"),
        ("", "--image"),
    ],
    "train --out run": [
        ("", "Length of the run must be a number of images"),
        ("--images 0", "Images must be"),
        ("--images lots", "'lots' is not a number like 500000 or 500k"),
        ("--images inf", "'inf' is not a number"),
        ("--epochs nan", "Epochs must be"),
        ("--images 9 --dataset imagenet", "Dataset must be"),
        ("--images 9 --dataset folder:nowhere", "There is no folder nowhere."),
        (
            "--images 9 --dataset folder:{zoo}",
            "should hold pictures, such as jpg, png or webp, but it has none",
        ),
        ("--images 9 {data} --size 0", "Size must be a whole number from 8 to 1,024, not 0."),
        ("--images 9 {data} --lr 0", "lr must be a number above 0 and up to 0.1, not 0.0."),
        ("--images 9 {data} --batch-size 0", "batch_size must be"),
        ("--images 9 {data} --ema 1", "Ema must be"),
        ("--images 9 {data} --multipliers 1,x", "'1,x' is not a list like 1,2,2"),
        ("--images 9 {data} --multipliers 0", "Multipliers must be"),
        ("--images 9 {data} --norm group --width 40", "Groups must be a divisor"),
        ("--images 9 {data} --dropout 2", "Dropout must be"),
        (
            "--images 9 {data} --class-conditional",
            "--class-conditional must be left out: the data has no classes.",
        ),
        ("--images 9 {data} --only cat", "Class must be left out, not 'cat': the data has no"),
        ("--images 9 {data} --init nothing", "There is no model 'nothing'"),
        ("--images 9 {data} --device tpu", "Device must be"),
        ("--images 9 {data} --out {photo}", "--out must be a folder, not"),
        ("--images 9 {data} --out {photo}/run", "--out must be a folder, not"),
        ("--images 9 {data} --warmup -1", "Warmup must be"),
        ("--images 9 {data} --decay 2", "Decay must be a number from 0 to 1, not 2.0."),
        ("--images 9 {data} --weight-decay -1", "weight_decay must be"),
        ("--images 9 {data} --beta2 1", "beta2 must be"),
        ("--images 9 {data} --grad-clip nan", "grad_clip must be"),
        ("--images 9 {data} --label-dropout 2", "label_dropout must be"),
        ("--images 9 {data} --preview-every 0", "preview_every must be"),
        ("--images 9 {data} --seed -1", "Seed must be"),
        ("--images 9 {data} --timesteps 9", "T must be a whole number from 10 to 4,000, not 9."),
        ("--images 9 {data} --beta-start 0", "beta_start must be"),
        ("--images 9 {data} --beta-end 1", "beta_end must be"),
        ("--images 9 {data} --width 4", "Width must be"),
        ("--images 9 {data} --blocks 0", "Blocks must be"),
        ("--images 9 {data} --attention 0", "Attention must be"),
        ("--images 9 {data} --multipliers none", "Multipliers must be"),
        ("--images 9 {data} --paper --width 48", "Groups must be"),
        ("--images 9 --loss l2", "'l2'"),
        ("--images 9 --weighting snr", "'snr'"),
        ("--images 9 --norm batch", "'batch'"),
        ("--images 9 --predict x", "'x'"),
        ("--images 9 --schedule sine", "'sine'"),
        ("--images 9 --noise uniform", "'uniform'"),
    ],
    "finetune --model tiny --out run": [
        ("{data} --batch-size 0", "batch_size must be"),
        (
            "{data} --batch-size 2",
            "batch_size must be a whole number from 1 to 1 (the number of pictures), not 2.",
        ),
        ("{data} --epochs 0", "Epochs must be"),
        ("{data} --every 0", "Every must be"),
        ("{data} --class cat", "Class must be left out, not 'cat': the data has no"),
        ("{data} --out {photo}", "--out must be a folder, not"),
        ("--dataset imagenet", "Dataset must be"),
    ],
    "evaluate --model tiny": [
        ("", "--metrics"),
        ("--metrics bpd --out r.txt", "Suffix of --out must be .json, not '.txt'."),
        ("--metrics bpd --out nowhere/r.json", "Folder of --out must be"),
        ("--metrics bpd {data} --bpd-steps 1", "--bpd-steps must be a whole number from "),
        ("--metrics bpd {data} --bpd-images 0", "--bpd-images must be"),
        ("--metrics bpd {data} --seed 4294967295", "Seed must be"),
        ("--metrics bpd {data} --steps 5,x", "'5,x' is not a list"),
        ("--metrics bpd {data} --split val", "'val'"),
    ],
    "ship run shipped --commit abc": [
        ("", "--limits"),
        ("--limits none", "RUN must be the folder of a run"),
        ("--limits none --sample {{", "--sample is not JSON"),
        ("--limits none --sample [1]", "--sample must be"),
    ],
    "export": [
        ("tiny", "FOLDER"),
        ("nothing new", "There is no model 'nothing'"),
        ("tiny new", "Norm must be 'group', not 'layer'"),
    ],
    "": [("", "COMMAND"), ("dance", "'dance'")],
    "models": [("--nonsense", "--nonsense")],
}


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [(command, *case) for command, cases in BAD.items() for case in cases],
)
def test_a_bad_argument_is_one_line_and_code_2(
    command: str, arguments: str, says: str, here: Path, zoo: Path, photo: Path, capsys: Capture
) -> None:
    files = {"empty": b"", "text": b"hello", "cut": photo.read_bytes()[:-60], "bomb": bomb()}
    files["large"] = b""
    for name, data in files.items():
        (here.parent / f"{name}.png").write_bytes(data)
    os.truncate(here.parent / "large.png", 20 * 10**6 + 1)  # has holes, so it costs nothing
    single = here.parent / "single"
    single.mkdir()
    photo.rename(single / photo.name)
    spoil(zoo)
    places = {name: str(here.parent / f"{name}.png") for name in files}
    places |= {
        "photo": str(single / photo.name),
        "zoo": str(zoo),
        "here": str(here),
        "data": f"--dataset folder:{single}",
    }
    line = f"{command} {arguments.format(**places)}"
    if command == "sample":
        line = line.replace("sample", "sample --model tiny --steps 4 -n 1 --out a.png", 1)
    capsys.readouterr()
    assert run(line) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    assert said.out == ""
    assert not list(here.iterdir())


def test_a_disk_that_is_full_is_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    for out in ("a.png", "a.npz"):
        assert run(f"sample --model tiny --steps 4 -n 1 --out {out}") == 1
        assert (
            "was not written: No space left on device" in capsys.readouterr().err.splitlines()[-1]
        )
    assert not list(Path().iterdir())


# Help


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(group.choices)


@pytest.mark.parametrize("command", commands())
def test_help_explains_every_option(command: str, capsys: Capture) -> None:
    assert run(f"{command} --help") == 0
    text = capsys.readouterr().out
    assert "usage: python -m ddpm_demo " + command in text
    assert max(map(len, text.splitlines())) < 120
    for action in commands()[command]._actions:
        assert action.help, f"{command} {action.option_strings or action.dest}"


def test_help_says_defaults(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("train --help") == 0
    text = capsys.readouterr().out
    for wanted in (
        "of all that is random (default: 0)",
        "of beta_t (default: that of --init, or cosine)",
    ):
        assert wanted in text
    assert run("ship --help") == 0
    assert "(default: )" not in capsys.readouterr().out


def test_help_is_quick() -> None:
    """No torch, no gradio: those take seconds."""
    code = (
        "import sys; sys.argv[:] = ['ddpm_demo', '--help']; import runpy\n"
        "try: runpy.run_module('ddpm_demo', run_name='__main__')\n"
        "except SystemExit as left: assert not left.code, left.code\n"
        "heavy = {'torch', 'gradio', 'numpy', 'torchvision', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for word in (*commands(), "examples:"):
        assert word in done.stdout


def test_every_example_of_the_help_parses() -> None:
    lines = [line.split() for line in EXAMPLES.splitlines() if "python -m" in line]
    assert len(lines) >= 4
    for words in lines:
        rest = list(itertools.dropwhile(lambda word: word != "ddpm_demo", words))[1:]
        assert parser().parse_args(rest)


# Where it runs


def test_a_path_may_begin_with_the_home_folder(
    folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HOME", str(here.parent))
    monkeypatch.setenv("USERPROFILE", str(here.parent))
    assert run("sample --model tiny --steps 2 -n 1 --out ~/at-home.png") == 0
    assert (here.parent / "at-home.png").is_file()
    line = f"train --dataset folder:~/{folder.name} {SMALL} --images 4 --out ~/here/run"
    assert run(line) == 0
    assert load_checkpoint("run").info["dataset"] == f"folder:{folder}"
    assert run("sample --model ~/here/run --steps 2 -n 1 --out=~/at-home.npz") == 0
    assert not (here / "~").exists()
    capsys.readouterr()
    assert run("sample --model tiny --out ~nobody-of-that-name/a.png") == 2
    assert "there is no home folder for its ~nobody-of-that-name" in capsys.readouterr().err


def test_no_home_is_needed_for_help(here: Path) -> None:
    """A user id without a passwd entry, as containers give it."""
    script = (
        "import os, pathlib, sys\n"
        "os.path.expanduser = lambda path: path\n"
        "from ddpm_demo.cli import main\n"
        "sys.exit(main(['train', '--help']))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HOME"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["models", "sample --model tiny --class ± --out a.png"])
def test_what_is_said_survives_any_encoding(
    command: str, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (zoo / "tiny").rename(zoo / "tiny±")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert run(command.replace("tiny", "tiny±")) == (0 if command == "models" else 2)
    for stream in (out, err):
        stream.flush()
    assert b"?" in (out if command == "models" else err).buffer.getvalue()  # type: ignore[attr-defined]
