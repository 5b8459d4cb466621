"""Brothers of the faults in docs/faults.md: paths, pictures, folders, labels, resumed runs."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_colour import COLOURS, in_p3, middles, picture, save

import ddpm_demo as dd
from ddpm_demo import data as d
from ddpm_demo.cli import main
from ddpm_demo.cli.options import dataset_name, model_name
from ddpm_demo.config import TrainConfig
from ddpm_demo.data import folder as folders
from ddpm_demo.machine.files import cache_folder, expand
from ddpm_demo.media.open import ImageError, open_image
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.diffusers_format import export_diffusers
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import models_folder
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.state import OtherRunError
from ddpm_demo.training.train import train
from ddpm_demo.ui.components import hub_handlers
from ddpm_demo.ui.serve import options_of
from ddpm_demo.ui.server import settings

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Tiny = Callable[..., Checkpoint]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A home folder with six pictures in `photos`; the working folder is another."""
    folder = tmp_path / "home"
    (folder / "photos").mkdir(parents=True)
    for k in range(6):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(folder / "photos" / f"{k}.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


# Row 1


@pytest.mark.skipif(os.name != "posix", reason="HOME is POSIX's")
def test_an_empty_home_is_none(monkeypatch: Patch) -> None:
    """Python takes it for the root, where nothing of a user's should go."""
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ValueError, match="No home folder is known"):
        cache_folder("samples", "--cache")


# Row 2


@pytest.mark.parametrize("short", ["~", "$HOME", "${HOME}"])
def test_shorthand_in_every_place(short: str, home: Path, monkeypatch: Patch) -> None:
    photos = home / "photos"
    assert expand(f"{short}/photos") == photos
    assert model_name(f"{short}/photos") == str(photos)
    for words in (f"folder:{short}/photos", f"folder: {short}/photos"):
        assert dataset_name(words) == f"folder:{photos}"
        assert len(d.load(words)) == 6
        assert d.state(words) == d.state(f"folder:{photos}")
        assert d.shown(words) == "folder:photos"
    assert hub_handlers.find(f"{short}/photos", True)[1] == str(photos.resolve())
    monkeypatch.setenv("DDPM_DEMO_MODELS", f"{short}/photos")
    monkeypatch.setenv("DDPM_DEMO_DATA", f"{short}/photos")
    assert models_folder() == d.data_dir() == photos
    monkeypatch.setattr(settings, "lessons", [])
    options_of([f"--lessons={short}/photos", "--port", "8123"])
    assert settings.lessons == [photos]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~nobody-of-that-name/x", "no home folder for its ~nobody-of-that-name"),
        ("$NO_SUCH_NAME/x", r"the environment has no \$NO_SUCH_NAME"),
    ],
)
def test_shorthand_that_stands_for_nothing(path: str, said: str, capsys: Capture) -> None:
    with pytest.raises(ValueError, match=said):
        hub_handlers.find(path, True)
    with pytest.raises(ValueError, match=said):
        d.load(f"folder:{path}")
    assert d.shown(f"folder:{path}") == "folder:x"  # a name can be told all the same
    with pytest.raises(SystemExit):
        main(["sample", f"--model={path}"])
    assert path.partition("/")[0] in capsys.readouterr().err


def test_a_name_that_begins_with_a_dollar(home: Path) -> None:
    Path("$odd").mkdir()
    assert expand("$odd/x") == Path("$odd/x")
    assert expand("a$HOME") == Path("a$HOME")


def test_a_file_that_is_missing_is_one_sentence(home: Path, capsys: Capture) -> None:
    words = ["ship", "run", "new", "--commit", "x", "--limits", "y", "--samplers", "none.json"]
    assert main(words) == 1
    assert capsys.readouterr().err == "ddpm_demo: none.json: No such file or directory.\n"


# Rows 5 and 6


def test_a_base_is_known_by_its_weights(tmp_path: Path, tiny: Tiny) -> None:
    """Not by its name: it may be moved, and other weights may be put in its place."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 1, 8, 8), generator=g, dtype=torch.uint8)
    images = d.Images(pixels, torch.full((8,), d.NO_LABEL))
    out = tmp_path / "run"

    def go_on(base: Checkpoint | None, name: str, pictures: int) -> Checkpoint:
        config = TrainConfig(images=pictures, batch_size=2)
        model = base or tiny().model.config
        if base:
            base.name = name
        for _ in train(model, tiny().diffusion, config, images, out, resume=True):
            pass
        return load_checkpoint(out)

    go_on(tiny(), "first", 2)
    assert go_on(tiny(), "moved", 4).info["base"] == "moved"
    with pytest.raises(OtherRunError, match="run: the base has other weights now"):
        go_on(tiny(seed=1), "moved", 6)
    with pytest.raises(OtherRunError, match=r"base.name was 'moved' and is None"):
        go_on(None, "", 6)
    assert RunFolder(out).resumable()


# Row 7


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def coded(png: bytes, *numbers: int) -> bytes:
    """With a chunk cICP after the header."""
    return png[:33] + chunk(b"cICP", bytes(numbers)) + png[33:]


def test_code_points_of_a_png() -> None:
    """Display P3 as screenshots say it; the profile beside it doesn't count. HDR stays as it is."""
    wide = coded(save(picture(in_p3(COLOURS)), icc_profile=b"broken"), 12, 13, 0, 1)
    assert np.abs(middles(wide) - COLOURS).max() <= 2
    for numbers in ((1, 13, 0, 1), (9, 16, 0, 1), (12, 13, 9, 1), (12, 13, 0, 0)):
        same = coded(save(picture(COLOURS)), *numbers)
        assert np.abs(middles(same) - COLOURS).max() == 0


def test_a_colour_key_of_sixteen_bits() -> None:
    key = struct.pack(">HHH", 0xC800, 0x6400, 0x3200)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + key * 8) * 8))
    start, end = b"\x89PNG\r\n\x1a\n" + head, rows + chunk(b"IEND", b"")
    assert open_image(start + end).getpixel((3, 3)) == (200, 100, 50)
    assert open_image(start + chunk(b"tRNS", key) + end).getpixel((3, 3)) == (255, 255, 255)


def test_modes_of_photos() -> None:
    """Each of these is (200, 100, 50), or a grey of 128, however it is written down."""
    colour, grey = Image.new("RGB", (16, 16), (200, 100, 50)), Image.new("L", (16, 16), 128)
    for mode, kind in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("RGBA", "PNG")):
        buffer = io.BytesIO()
        colour.convert(mode).save(buffer, kind, quality=100)
        found = np.asarray(open_image(buffer.getvalue()), int)[8, 8]
        assert np.abs(found - (200, 100, 50)).max() <= 2
    deep = Image.fromarray(np.full((16, 16), 0x8080, np.uint16))
    for image in (grey, grey.convert("LA"), deep):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        assert open_image(buffer.getvalue()).getpixel((8, 8)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\0\0\0\x18ftypheix", "HEIC, which cannot be read"),
        (b"\0\0\0\x14ftypqt  ", "a film, which"),
        (b"PK\3\4", "a zip archive, which"),
        (b"\xff\x0a", "JPEG XL, which"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"<!doctype html>", "the file is not a picture; use"),
    ],
)
def test_what_people_take_for_a_picture(start: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        open_image(start.ljust(200, b"\1"))


# Row 8


def test_a_folder_of_diffusers_without_an_index(tmp_path: Path, tiny: Tiny) -> None:
    """The index says nothing that the other files don't; the Hub's own cache may lack it."""
    folder = tmp_path / "model"
    export_diffusers(tiny(norm="group", groups=4), folder)
    (folder / "model_index.json").unlink()
    assert load_checkpoint(folder).parameters == tiny(norm="group", groups=4).parameters
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"scheduler_config.json is missing"):
        load_checkpoint(folder)


# Row 9


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_that_is_no_class_is_refused(label: int, tiny: Tiny) -> None:
    """3 is the network's own number for "none" where there are three classes."""
    images = d.Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, label, -1]))
    base, config = tiny(num_classes=3), TrainConfig(images=4, batch_size=2)
    with pytest.raises(ValueError, match=r"Labels must be from -1 \(none\) to 2"):
        next(train(base, base.diffusion, config, images))


# Row 11


def test_a_folder_is_no_picture(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"'\.' cannot be read: Is a directory"):
        open_image(".")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
@pytest.mark.timeout(60)
def test_a_pipe_is_no_picture(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    """Nobody writes into it, so whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)
    for place in ("pipe.png", "/dev/zero"):
        assert main(["noise", "--image", place, "--out", "a.png"]) == 2
        said = capsys.readouterr().err
        assert "cannot be read: it is a pipe or a device, not a file" in said
    assert main(["sample", "--model", "./pipe.png", "--out", "a.png"]) == 2
    with pytest.raises(d.DataError, match=r"it has none.*1 .png"):
        d.load("folder:.")


# Row 12


def test_a_whole_disk_is_no_folder_of_pictures(home: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(folders, "OTHERS", 30)
    (home / "a").mkdir()
    for k in range(30):
        (home / "a" / f"{k}.txt").touch()
    with pytest.raises(d.DataError, match="of the first 30, 0 are pictures"):
        d.load("folder:~")
    Image.new("RGB", (8, 8)).save(home / "a" / "0.png")  # more than one in a hundred
    assert len(d.load("folder:~")) == 7


def test_links_and_odd_files_of_a_folder(home: Path) -> None:
    photos, outside = home / "photos", home / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8), (7, 0, 0)).save(outside / "IMG_1.JPEG", "PNG")
    (photos / "linked").symlink_to(outside)
    (photos / "again").symlink_to(photos)
    (photos / "up").symlink_to("..")  # all of the home folder
    (photos / "dead.png").symlink_to("nowhere.png")
    Image.new("RGB", (8, 8), (9, 0, 0)).save(photos / ".hidden.PNG")
    (photos / "._0.png").write_bytes(b"\0\5\x16\7" + bytes(60))  # macOS leaves such
    frames = [Image.new("RGB", (8, 8), (c, 0, 0)) for c in (30, 200)]
    frames[0].save(photos / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    for k in range(12):
        (photos / f"x.kind{k}").touch()
    found = d.load(f"folder:{photos}", size=8)
    reds = sorted(int(p[0].float().mean()) for p in found.pixels)
    assert len(found) == 9
    assert {7, 9, 30} <= set(reds)
    said = " / ".join(found.skipped)
    for part in ("up: a link to a folder above", "dead.png: No such file", "._0.png", ", 4 others"):
        assert part in said


def test_a_file_in_the_place_of_a_folder_of_pictures(home: Path) -> None:
    (home / "photos.zip").write_bytes(b"PK\3\4")
    with pytest.raises(d.DataError, match=r"photos.zip is a file; .*; unpack it first"):
        d.load("folder:~/photos.zip")
    with pytest.raises(d.DataError, match=r"0.png is a file; folder:PATH names a folder of"):
        d.load("folder:~/photos/0.png")


def test_a_folder_is_called_by_nothing_else(tmp_path: Path, tiny: Tiny, monkeypatch: Patch) -> None:
    """Two models of one name in two places are two models."""
    for k in (0, 1):
        save_checkpoint(tmp_path / str(k) / "m", tiny(seed=k))
    grids = [dd.load(tmp_path / str(k) / "m").sample(n=1, steps=1).pixels for k in (0, 1)]
    assert (grids[0] != grids[1]).any()


def test_the_table_names_tests_that_there_are() -> None:
    tests = Path(__file__).parent
    table = (tests.parent / "docs" / "faults.md").read_text("utf-8")
    text = "\n".join(path.read_text("utf-8") for path in tests.glob("*.py"))
    for name in re.findall(r"`(test_\w+)…?`", table):
        assert f"def {name}" in text or (tests / f"{name}.py").is_file(), name
