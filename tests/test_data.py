"""Folders with all sorts of files, torchvision's layouts, and what is said when all is missing."""

import hashlib
import io
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from ddpm_demo.cli import main
from ddpm_demo.data import (
    DATASETS,
    DataError,
    DataSet,
    Images,
    arrived,
    data_dir,
    load,
    named,
    shown,
)
from ddpm_demo.data.folder import held_out
from ddpm_demo.ui.server.work import data_of


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def flat(colour: object, mode: str, size: tuple[int, int] = (9, 9)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("<urlopen error: no network>\nsecond line")

    for module in (datasets.mnist, datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", fail)


# Folders


def test_a_folder_of_all_sorts(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "ü b"
    deep.mkdir(parents=True)
    red, grey, clear = (200, 10, 10), (77,) * 3, (255,) * 3  # transparency is laid on white
    flat(red, "RGB", (20, 9)).save(tmp_path / "1.png")
    flat((0, 255, 255, 0), "CMYK").save(deep / "2.JPG", quality=100)
    flat((9, 9, 9, 0), "RGBA").save(deep / "3.webp", lossless=True)
    flat(77, "L").save(deep / "4.png")
    flat(77 * 257, "I;16").save(tmp_path / "5.png")
    (tmp_path / "6.png").write_bytes(b"")
    (tmp_path / "7.jpg").write_text("not a picture")
    whole = io.BytesIO()
    picture(0, (200, 200)).save(whole, "JPEG")
    (tmp_path / "8.jpeg").write_bytes(whole.getvalue()[:900])
    (tmp_path / "notes.txt").write_text("no picture, and nobody said so")
    (tmp_path / "9.png").mkdir()  # a folder

    got = load(f"folder:{tmp_path}", size=8)
    assert got.pixels.shape == (5, 3, 8, 8)
    assert (got.pixels.dtype, got.pixels.is_contiguous()) == (torch.uint8, True)
    assert (got.labels.tolist(), got.classes, got.flip) == ([-1] * 5, (), True)
    wanted = [red, grey, (255, 0, 0), clear, grey]  # by path: 1, 5, then those deeper down
    for pixels, colour in zip(got.pixels, wanted, strict=True):
        gap = (pixels.int() - torch.tensor(colour).view(3, 1, 1)).abs().max()
        assert gap <= 3  # JPEG
    other, *broken = got.skipped
    assert other == "files whose names are not those of pictures: 1 .txt"
    assert [line.split(":")[0] for line in broken] == [
        str(tmp_path / name) for name in ("6.png", "7.jpg", "8.jpeg")
    ]
    for line, reason in zip(broken, ("empty", "not a picture", "damaged"), strict=True):
        assert reason in line


def test_reading_is_told(tmp_path: Path) -> None:
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    seen: list[str] = []

    def note(files: list[Path]) -> Iterator[Path]:
        for file in files:
            yield file
            seen.append(file.name)

    assert len(load(f"folder:{tmp_path}", size=8, progress=note)) == 3
    assert seen == ["0.png", "1.png", "2.png"]


def test_pictures_are_cut_square_from_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    got = load(f"folder:{tmp_path}", size=10)
    assert (got.pixels == 255).all()
    assert load(f"folder:{tmp_path}").pixels.shape == (1, 3, 32, 32)


def test_grey_folders(tmp_path: Path) -> None:
    flat((255, 0, 0), "RGB").save(tmp_path / "red.png")
    got = load(f"folder:{tmp_path}", size=8, channels=1)
    assert got.pixels.shape == (1, 1, 8, 8)
    assert (got.pixels == 76).all()  # 0.299 of 255


def test_held_out_pictures_are_others_and_stay_so(tmp_path: Path) -> None:
    def sets() -> tuple[set[bytes], set[bytes]]:
        both = (load(f"folder:{tmp_path}", size=8, train=split) for split in (True, False))
        return tuple({p.numpy().tobytes() for p in s.pixels} for s in both)  # type: ignore[return-value]

    for i in range(300):
        picture(i, (8, 8)).save(tmp_path / f"{i:03}.png")
    train, held_out = sets()
    assert len(train) + len(held_out) == 300
    assert not train & held_out
    assert 5 <= len(held_out) <= 30
    for i in range(300, 330):
        picture(i, (8, 8)).save(tmp_path / f"more {i}.png")
    more, still = sets()
    assert train < more
    assert held_out <= still


def test_a_small_folder_holds_nothing_out(tmp_path: Path) -> None:
    for i in range(5):
        picture(i).save(tmp_path / f"{i}.png")
    both = [load(f"folder:{tmp_path}", size=8, train=train) for train in (True, False)]
    assert torch.equal(both[0].pixels, both[1].pixels)


def test_that_none_happens_to_be_held_out_is_no_error(tmp_path: Path) -> None:
    """One name in twenty is held out; with fifty pictures there may be none, or a broken one."""
    names = (f"{i}.png" for i in range(10_000))
    chance = {n: hashlib.sha1(n.encode()).digest()[0] <= 12 for n in names}
    kept, held = ([n for n, h in chance.items() if h is wanted][:50] for wanted in (False, True))
    for name in kept:
        picture(0, (8, 8)).save(tmp_path / name)
    assert load(f"folder:{tmp_path}", size=8, train=False).pixels.shape == (0, 3, 8, 8)
    (tmp_path / held[0]).write_bytes(b"broken")
    got = load(f"folder:{tmp_path}", size=8, train=False)
    assert (len(got), len(got.skipped)) == (0, 1)
    assert len(load(f"folder:{tmp_path}", size=8)) == 50


KINDS = ("png", "jpg", "jpeg", "jfif", "JPG", "webp", "bmp", "tif", "tiff", "gif", "avif", "ppm")


@pytest.mark.parametrize("suffix", KINDS)
def test_what_pillow_reads_is_read(suffix: str, tmp_path: Path) -> None:
    kind = {"jpg": "JPEG", "jfif": "JPEG", "tif": "TIFF"}.get(suffix.lower(), suffix.upper())
    flat((200, 10, 10), "RGB", (16, 16)).save(tmp_path / f"a.{suffix}", kind)
    got = load(f"folder:{tmp_path}", size=8)
    assert (len(got), got.skipped) == (1, ())
    assert (got.pixels[0].float().mean((1, 2)) - torch.tensor([200.0, 10, 10])).abs().max() < 6


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    for name in ("a.txt", "b.txt", "film.mp4", "README", ".DS_Store"):
        (tmp_path / name).write_text("x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    lost, others = load(f"folder:{tmp_path}", size=8).skipped
    assert lost == f"{tmp_path / 'gone.png'}: No such file or directory"
    assert others.startswith("files whose names are not those of pictures: ")
    for part in ("2 .txt", "1 .mp4", "2 without a suffix"):
        assert part in others


def test_links_are_followed_once(tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    for folder in (root / "real", away / "deep"):
        folder.mkdir(parents=True)
    picture(0).save(root / "real" / "a.png")
    picture(1).save(away / "b.png")
    picture(2).save(away / "deep" / "c.png")
    (root / "again").symlink_to(root / "real")  # seen already, under its own path
    (root / "also.png").symlink_to(root / "real" / "a.png")
    (root / "linked").symlink_to(away)
    (root / "twice").symlink_to(away / "deep")
    (root / "real" / "up").symlink_to(root)  # a loop
    (away / "deep" / "round").symlink_to(away)
    seen: list[Path] = []
    got = load(f"folder:{root}", size=8, progress=lambda files: seen.extend(files) or files)
    assert (len(got), got.skipped) == (3, ())
    assert seen[-1] == root / "real" / "a.png"
    assert {p.name for p in seen} == {"a.png", "b.png", "c.png"}


SEGMENT = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=SEGMENT,
    folders=st.lists(SEGMENT, min_size=1, max_size=3),
    where=st.sampled_from([("/data",), ("/mnt/x", "../y"), ("relative",)]),
)
def test_one_in_twenty_is_held_out_whatever_the_names(
    name: str, folders: list[str], where: tuple[str, ...]
) -> None:
    """Names that are all alike in numbered folders, and numbered names in folders that are alike;
    the same below every root."""
    for paths in (
        [Path(*folders, str(i), f"{name}.png") for i in range(300)],
        [Path(*folders, f"{name}{i}.png") for i in range(300)],
    ):
        held = [held_out(Path(where[0]) / p, Path(where[0])) for p in paths]
        assert 1 <= sum(held) <= 40
        other = Path(*where, "moved")
        assert held[::10] == [held_out(other / p, other) for p in paths[::10]]


def test_pictures_of_one_name_in_many_folders(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / str(i)).mkdir()
        picture(i, (8, 8)).save(tmp_path / str(i) / "photo.webp", lossless=True)
    train, held = (load(f"folder:{tmp_path}", size=8, train=t) for t in (True, False))
    assert len(train) + len(held) == 60
    assert len(train) >= 50


def test_digests_are_of_the_pictures_and_not_of_their_names(tmp_path: Path) -> None:
    for i in range(6):
        picture(i, (8, 8)).save(tmp_path / f"{i}.png")
    before = load(f"folder:{tmp_path}", size=8).digests()
    assert len(before.unique()) == 6
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    (moved / "0.png").rename(moved / "9.png")
    after = load(f"folder:{moved}", size=8).digests()
    assert torch.equal(after, before.roll(-1))
    assert not torch.equal(load(f"folder:{moved}", size=16).digests(), after)


def test_a_home_is_looked_up_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pics").mkdir()
    picture(0).save(tmp_path / "pics" / "a.png")
    assert len(load("folder:~/pics", size=8)) == 1
    assert data_dir() == tmp_path / ".cache" / "ddpm_demo" / "data"
    monkeypatch.setenv("DDPM_DEMO_DATA", "~/sets")
    assert data_dir() == tmp_path / "sets"
    monkeypatch.delenv("DDPM_DEMO_DATA")

    def homeless(_: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(
        ValueError, match=r"No home folder is known.* \(--data-dir or DDPM_DEMO_DATA"
    ):
        load("mnist")
    assert arrived("mnist") == (0, 11_594_722)
    with pytest.raises(ValueError, match="no home folder for its ~"):
        load("folder:~/pics")


def test_a_data_set_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made here, outside of the package."""

    def loader(folder: Path, train: bool) -> Images:
        n = 4 if train else 2
        return Images(torch.full((n, 1, 8, 8), 7).byte(), torch.arange(n) % 2, ("a", "b"), True)

    monkeypatch.setitem(DATASETS, "stripes", DataSet(loader, 8, 1, "Stripes, made by a test."))
    got = load("stripes", tmp_path, train=False, size=16, channels=3)
    assert (got.pixels.shape, got.classes, got.flip) == ((2, 3, 16, 16), ("a", "b"), True)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "stripes" in capsys.readouterr().out
    assert "stripes" in named()
    assert arrived("stripes") == (0, 0)
    assert len(data_of("stripes", 8, 1, local=False)) == 4  # what the app trains on
    with pytest.raises(DataError, match="mnist, fashion_mnist, cifar10, stripes or folder:PATH"):
        load("imagenet")


@pytest.mark.parametrize(
    "words", ["folder:/home/me/mnist", "folder:/home/me/mnist/", "folder:mnist"]
)
def test_of_a_folder_only_its_own_name_is_shown(words: str) -> None:
    assert shown(words) == "folder:mnist"
    assert shown("mnist") == "mnist"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "but it has none"),
        ({"a.txt": b"x"}, r"but it has none \(files whose names are not .*: 1 .txt\)"),
        ({"a.png": b"x", "b.jpg": b""}, "but none of its 2 pictures can be read"),
    ],
)
def test_a_folder_without_pictures(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says):
        load(f"folder:{tmp_path}")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*nowhere\."):
        load(f"folder:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("size", [0, 7, 1025, -8])
def test_a_bad_size(size: int, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=f"Size must be a whole number from 8 to 1,024, not {size}"
    ):
        load(f"folder:{tmp_path}", size=size)


# torchvision's data sets


def idx(array: np.ndarray) -> bytes:
    """The format of the MNIST files."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Callable[[str], np.ndarray]:
    def write(name: str = "MNIST") -> np.ndarray:
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
        for split, n in (("train", 7), ("t10k", 3)):
            (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(pixels[:n]))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.arange(n, dtype=np.uint8)))
        return pixels

    return write


@pytest.mark.parametrize(
    ("dataset", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist(
    dataset: str, name: str, tmp_path: Path, mnist: Callable[[str], np.ndarray], offline: None
) -> None:
    pixels = mnist(name)
    got = load(dataset, tmp_path)
    assert got.pixels.shape == (7, 1, 28, 28)
    assert np.array_equal(got.pixels[:, 0].numpy(), pixels)
    assert got.labels.tolist() == list(range(7))
    assert len(got.classes) == 10
    assert got.flip == (dataset == "fashion_mnist")  # a mirrored 2 is no digit; a coat is a coat
    assert len(load(dataset, tmp_path, train=False)) == 3

    framed = load(dataset, tmp_path, size=32).pixels
    assert np.array_equal(framed[:, 0, 2:-2, 2:-2].numpy(), pixels)
    assert int(framed.sum()) == int(pixels.sum())  # black around it
    assert load(dataset, tmp_path, size=14).pixels.shape == (7, 1, 14, 14)
    colour = load(dataset, tmp_path, channels=3).pixels
    assert torch.equal(colour, got.pixels.expand(-1, 3, -1, -1))


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    contents = {
        f: {"data": p.reshape(2, -1), "labels": [3, 9]} for f, p in zip(files, planes, strict=True)
    }
    contents["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    sums = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[f, sums[f]] for f in files[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", sums["batches.meta"])

    got = load("cifar10", tmp_path)
    assert np.array_equal(got.pixels.numpy(), planes[:5].reshape(10, 3, 32, 32))
    assert got.labels.tolist() == [3, 9] * 5
    assert (got.classes[3], got.flip) == ("class 3", True)
    assert np.array_equal(load("cifar10", tmp_path, train=False).pixels.numpy(), planes[5])
    grey = load("cifar10", tmp_path, channels=1).pixels[:, 0].numpy()
    wanted = np.tensordot(planes[:5].reshape(10, 3, 32, 32), [0.299, 0.587, 0.114], ((1,), (0,)))
    assert np.abs(grey - wanted).max() <= 0.5 + 1e-9
    larger = load("cifar10", tmp_path, size=36).pixels  # resized: a black frame is for digits only
    assert larger[:, :, 0].float().mean() > 60

    (folder / "data_batch_2").write_bytes(b"other")  # its sum is wrong now
    with pytest.raises(DataError, match="not whole"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10"])
def test_offline_and_absent(dataset: str, tmp_path: Path, offline: None) -> None:
    with pytest.raises(DataError) as caught:
        load(dataset, tmp_path / "data")
    message = str(caught.value)
    assert message.startswith(f"{dataset} is not in {tmp_path / 'data'}")
    assert "connect once" in message
    assert "\n" not in message


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_truncated_file(
    keep: int, tmp_path: Path, mnist: Callable[..., object], offline: None
) -> None:
    mnist()
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"mnist is not in .*, or not whole"):
        load("mnist", tmp_path)


def test_a_download_is_used(
    tmp_path: Path, mnist: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchvision fetches is read at once; here the files appear instead."""
    fetched = []

    def fetch(_url: str, download_root: str, filename: str, **_: object) -> None:
        if not fetched:
            mnist()
        assert Path(download_root) == tmp_path / "MNIST" / "raw"
        fetched.append(filename)

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fetch)
    assert len(load("mnist", tmp_path)) == 7
    assert "train-images-idx3-ubyte.gz" in fetched


def test_how_much_of_a_download_has_come(tmp_path: Path) -> None:
    assert arrived("cifar10", tmp_path / "none") == (0, 170_498_071)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(bytes(1234))
    assert arrived("cifar10", tmp_path) == (1234, 170_498_071)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (raw / name).write_bytes(bytes(10))
    assert arrived("mnist", tmp_path) == (20, 11_594_722)


def test_one_of_two_that_come_at_once_downloads(
    tmp_path: Path, mnist: Callable[[str], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the processes of a node do: the second one waits, and finds the data there."""
    fetched, waiting = [], threading.Event()
    acquire = FileLock.acquire

    def noted(self: FileLock, *args: Any, **options: Any) -> Any:
        if fetched:
            waiting.set()
        return acquire(self, *args, **options)

    def fetch(_url: str, download_root: str, filename: str, **_: object) -> None:
        fetched.append(filename)
        if len(fetched) == 1:
            other.start()
            assert waiting.wait(60)
            mnist("MNIST")

    got: list[Images] = []
    other = threading.Thread(target=lambda: got.append(load("mnist", tmp_path)))
    monkeypatch.setattr(FileLock, "acquire", noted)
    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fetch)
    got.append(load("mnist", tmp_path))
    other.join(60)
    assert [len(images) for images in got] == [7, 7]
    assert len(fetched) == len(set(fetched)) == 4


def test_data_in_a_folder_that_can_only_be_read(
    tmp_path: Path, mnist: Callable[[str], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist("MNIST")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refused)
    assert len(load("mnist", tmp_path)) == 7


def test_an_unknown_data_set() -> None:
    with pytest.raises(
        DataError, match=r"Dataset must be mnist, .* or folder:PATH, not 'imagenet'"
    ):
        load("imagenet")


# What is done with them


def images(classes: tuple[str, ...] = ("cat", "dog", "elk")) -> Images:
    pixels = torch.arange(6 * 4, dtype=torch.uint8).reshape(6, 1, 2, 2)
    return Images(pixels, torch.tensor([0, 1, 2, 1, 0, 1]), classes)


def test_only() -> None:
    dogs = images().only("dog")
    assert torch.equal(dogs.pixels, images().pixels[[1, 3, 5]])
    assert dogs.labels.tolist() == [1, 1, 1]
    assert dogs.classes == ("cat", "dog", "elk")
    with pytest.raises(ValueError, match=r"Class must be cat, dog or elk, not 'cow'\."):
        images().only("cow")
    with pytest.raises(ValueError, match=r"must be left out, not '.*': the data has no classes"):
        images(()).only("cow")


def test_a_part_has_as_many_of_each_class() -> None:
    """Labels 0, 1, 2, 1, 0, 1: the first of each class, then the second, then the third."""
    assert images().part("6").tolist() == [0, 1, 2, 4, 3, 5]
    assert images().part("3").tolist() == [0, 1, 2]
    assert images().part("3:6").tolist() == [4, 3, 5]
    for words in ("0", "7", "3:3", "-1", "4:2", "x", "", "1:2:3", "9" * 5000):
        with pytest.raises(ValueError, match="Pictures must be a number from 1 to 6, or FROM:TO"):
            images().part(words)


def test_batch() -> None:
    x = Images(torch.tensor([0, 255, 51]).byte().reshape(3, 1, 1, 1), torch.zeros(3))
    got = x.batch(torch.tensor([2, 0, 1, 1]))
    assert got.dtype == torch.float32
    assert (got.flatten() - torch.tensor([-0.6, -1, 1, 1])).abs().max() < 1e-6
