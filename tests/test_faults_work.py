"""Brothers of the faults in docs/faults.md: places and names tried first, private facts, limits."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

import ddpm_demo as dd
from ddpm_demo.cli import main
from ddpm_demo.experiments import EXPERIMENTS
from ddpm_demo.experiments.asked import Race
from ddpm_demo.experiments.slide import as_json, command
from ddpm_demo.experiments.tools import Report
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media import encode, web_page
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.publishing.push import repo_name
from ddpm_demo.ui.server.guard import closed, route_of

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Tiny = Callable[..., Checkpoint]
FRAME = np.zeros((3, 5, 3), np.uint8)


def pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for k in range(4):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(folder / f"{k}.png")
    return folder


# Row 3


@pytest.mark.parametrize(
    ("path", "root", "shut"),
    [
        ("/gradio_api/upload", "/proxy=/vibe-", False),
        ("/gradio_api/file=/tmp/a b/#dev/100%/ü?x=http://a", "", False),
        ("/gradio_api/file=C:/Temp/deep_link/cat.png", "", False),
        ("/gradio_api/file=https:/example.org", "/a/b", True),
        ("/a/b/gradio_api/proxy=http://example.org", "/a/b/", True),
    ],
)
def test_routes_below_any_proxy(path: str, root: str, shut: bool) -> None:
    assert closed(route_of({"path": path, "root_path": root})) is shut


# Row 14


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_results_are_whole_in_any_encoding(
    encoding: str, tmp_path: Path, tiny: Tiny, monkeypatch: Patch
) -> None:
    """The words on the screen lose a sign; those in the file lose none."""
    folder = pictures(tmp_path / "Fotos ä→ж")
    save_checkpoint(tmp_path / "mödel→", tiny(channels=3))
    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(screen, encoding))
    words = ["evaluate", "--model", str(tmp_path / "mödel→"), "--metrics", "bpd"]
    words += ["--bpd-images", "2", "--bpd-steps", "2", "--dataset", f"folder:{folder}"]
    out = tmp_path / "ergebnis→.json"
    assert main([*words, "--out", str(out)]) == 0
    assert b" bits/dim on 2 test pictures" in screen.getvalue()
    assert json.loads(out.read_text("utf-8"))["model"] == "mödel→"


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Standard output and error are pipes that nobody reads any more, as of `2>&1 | head -0`."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("stdout", "stderr"):
            read, write = os.pipe()
            os.close(read)
            stream = stack.enter_context(os.fdopen(write, "w", encoding="utf-8"))
            patch.setattr(sys, name, stream)
        yield


@contextlib.contextmanager
def closed_screen() -> Iterator[None]:
    """As of `>&- 2>&-`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        yield


@contextlib.contextmanager
def in_ascii() -> Iterator[None]:
    """As of `PYTHONIOENCODING=ascii`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), "ascii"))
        yield


FEW = "--dataset folder:cats→ --metrics bpd --bpd-images 2 --bpd-steps 2"
BRIEF = "--dataset folder:cats→ --batch-size 4"
WORK = (  # commands in their order, what each leaves, and whether it says where that is
    ("noise --image cats→/0.png --size 8 --t 1 --out a.png", "a.png", True),
    (f"evaluate --model nét {FEW} --out é.json", "é-terms.svg", True),
    (f"train --init nét {BRIEF} --images 4 --out run→", "run→/model.safetensors", False),
    (f"finetune --model nét {BRIEF} --steps 1 --out tuned→", "tuned→/morph.gif", True),
    ("ship run→ zoo/né --commit c --limits →", "zoo/né/README.md", True),
    (f"evaluate --model né {FEW} --card", "zoo/né/README.md", True),
    (
        "distill --model nét --steps 2,1 --trajectories 4 --batch-size 4 --iterations 1 --out few→",
        "few→/model.safetensors",
        True,
    ),
    ("experiment noises --model nét --out é→.png", "é→.json", True),
)


@pytest.mark.parametrize("screen", [unread, closed_screen, in_ascii])
def test_work_goes_on_whatever_becomes_of_the_screen(
    screen: Callable[[], contextlib.AbstractContextManager[None]],
    tmp_path: Path,
    tiny: Tiny,
    monkeypatch: Patch,
) -> None:
    """The code is 1 where a line of the result, such as the name of the file, was lost."""
    pictures(tmp_path / "cats→")
    net = tiny(channels=3, num_classes=2, predict="v")
    net.info |= {"classes": ["é→0", "é→1"], "sample": {"steps": 2}}
    save_checkpoint(tmp_path / "zoo" / "nét", net)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEMO_MODELS", "zoo")
    for words, made, said in WORK:
        with screen():
            assert main(words.split()) == (screen is unread and said), words
        assert Path(made).is_file(), words
    assert "--metrics bpd" in Path("zoo/né/README.md").read_text("utf-8")


def test_a_screen_that_is_full_or_closed(zoo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open(os.devnull) as deaf, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(_Unwritable(deaf.fileno()), "utf-8"))
        assert main(["models"]) == 1
        patch.setattr(sys, "stdout", None)
        assert main(["models"]) == 0
    said = capfd.readouterr().err
    assert said == "ddpm_demo: Not all that was said could be written: Bad file descriptor.\n"


class _Unwritable(io.BytesIO):
    """Bytes that end in a file that is open for reading alone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


# Row 15


def test_results_and_slides_name_no_place(tmp_path: Path, tiny: Tiny, monkeypatch: Patch) -> None:
    folder = pictures(tmp_path / "secret" / "cats")
    save_checkpoint(tmp_path / "secret" / "net", tiny(channels=3))
    monkeypatch.chdir(tmp_path)
    words = f"evaluate --model {tmp_path}/secret/net --metrics bpd --bpd-images 2 --bpd-steps 2"
    assert main([*words.split(), "--dataset", f"folder:{folder}", "--out", "r.json"]) == 0
    said = Path("r.json").read_text("utf-8")
    assert "secret" not in said
    assert json.loads(said)["dataset"] == "folder:cats"
    asked, row = Race(model=f"{tmp_path}/secret/net"), EXPERIMENTS["race"]
    assert "--model net" in command(row, asked)
    assert "secret" not in as_json(row, asked, Report(1.0))
    assert "--model YOU/net" in command(row, Race(model="YOU/net"))


# Row 19


@pytest.mark.parametrize("name", ["a/b/c", "me/", "-x", "me/a..b", "https://huggingface.co/me/x"])
def test_a_name_that_no_repo_can_have_is_refused_before_the_work(
    name: str, tmp_path: Path, tiny: Tiny, capsys: Capture
) -> None:
    save_checkpoint(tmp_path / "m", tiny(channels=3))
    words = f"finetune --model {tmp_path}/m --dataset folder:{tmp_path}/p --out {tmp_path}/run"
    assert main([*words.split(), f"--push={name}"]) == 2
    assert "Repository must be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert repo_name(" me/cifar10-ship ") == "me/cifar10-ship"


def test_the_numbers_of_an_experiment_need_a_place_too(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.json").mkdir()
    assert main(["experiment", "plane", "--out", str(tmp_path / "p.png")]) == 2
    assert "p.json" in capsys.readouterr().err


def test_no_run_is_written_over_a_model_or_among_its_own_pictures(
    tmp_path: Path, tiny: Tiny, monkeypatch: Patch, capsys: Capture
) -> None:
    folder = pictures(tmp_path / "cats")
    save_checkpoint(tmp_path / "net", tiny(channels=3))
    before = (tmp_path / "net" / "model.safetensors").read_bytes()
    monkeypatch.chdir(folder)
    data, end = "--dataset folder:.", "--images 4 --batch-size 4"
    for words, said in (
        (f"train {data} --init ../net {end} --out ../net", "a folder without a model"),
        (f"train {data} --init ../net {end} --out ../net --resume", "a folder without a model"),
        (f"finetune {data} --model ../net --steps 1 --out ../net", "a folder without a model"),
        (f"train {data} {end} --out run", "outside of folder:cats"),
        (f"finetune {data} --model ../net --steps 1 --out ../cats", "outside of folder:cats"),
    ):
        assert main(words.split()) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="a folder without a model"):
        dd.finetune("../net", dataset="folder:.", out="../net", images=4)
    with pytest.raises(ValueError, match="outside of folder:cats"):
        dd.train("folder:.", "run", images=4)
    assert (tmp_path / "net" / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    "words", ["train --dataset folder:x --images 1 --out", "noise --image", "evaluate --cache"]
)
def test_an_empty_word_is_no_folder(words: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*words.split(), ""])
    assert "'' names no file or folder" in capsys.readouterr().err


def test_a_run_that_is_done_says_so(tmp_path: Path, tiny: Tiny, capsys: Capture) -> None:
    save_checkpoint(tmp_path / "net", tiny(channels=3))
    words = f"train --dataset folder:{pictures(tmp_path / 'cats')} --init {tmp_path}/net"
    words += f" --images 4 --batch-size 4 --out {tmp_path}/run"
    assert main(words.split()) == 0
    assert "already" not in capsys.readouterr().err
    assert main([*words.split(), "--resume"]) == 0
    assert "run is already as long as was asked for." in capsys.readouterr().err


# Row 20


def test_a_page_without_a_run() -> None:
    with pytest.raises(ValueError, match="a run of at least one step"):
        web_page.run_page([], {}, ("", ""))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("mp4", {"hold": 600, "fps": 1000}), ("gif", {"fps": float("nan")}), ("mp4", {"fps": 0})],
)
def test_times_that_would_never_end(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Hold|Fps"):
        encode.encode([FRAME], kind, **options)


@pytest.mark.parametrize("frames", [[], [FRAME[:0]], [FRAME, FRAME[1:]], [FRAME[..., :1]]])
def test_no_frames_or_odd_ones(frames: list[np.ndarray]) -> None:
    for kind in ("gif", "mp4", "png"):
        with pytest.raises(ValueError, match=r"frames must all be of one shape|holds one frame"):
            encode.encode(frames, kind)


@pytest.mark.parametrize("fps", [0.01, 1 / 3, 29.97, 59.94])
def test_rates_that_are_no_whole_numbers(fps: float) -> None:
    film = encode.encode([FRAME, FRAME + 200], "mp4", fps=fps, hold=0)
    assert abs(iio.immeta(film, plugin="pyav")["fps"] / fps - 1) < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 1), (513, 515)])
def test_sides_of_one_pixel_and_odd_ones(shape: tuple[int, int]) -> None:
    frames = [np.full((*shape, 3), level, np.uint8) for level in (10, 200)]
    gif = iio.imread(encode.encode(frames, "gif"), plugin="pillow", index=None)
    assert gif.shape[:3] == (2, *shape)
    film = iio.imread(encode.encode(frames, "mp4", hold=0), plugin="pyav")
    assert film.shape[1] % 2 == film.shape[2] % 2 == 0
    assert [round(float(f.mean()), -1) for f in film] == [10, 200]


def test_many_frames() -> None:
    frames = [np.full((1, 1, 3), k % 256, np.uint8) for k in range(1000)]
    gif = encode.encode(frames, "gif", fps=50)
    with Image.open(io.BytesIO(gif)) as film:
        assert getattr(film, "n_frames", 0) == 1000


# What would do nothing is said


def test_guidance_without_classes_is_refused(
    tmp_path: Path, tiny: Tiny, monkeypatch: Patch, capsys: Capture
) -> None:
    save_checkpoint(tmp_path / "net", tiny())
    monkeypatch.chdir(tmp_path)
    said = "Guidance must be 1, not 3.0: the model has no classes."
    for words in ("sample -n 1 --out a.png", "evaluate --metrics bpd --dataset mnist"):
        assert main([*words.split(), "--model", "./net", "--guidance", "3"]) == 2
        assert said in capsys.readouterr().err
    model = dd.load("./net")
    with pytest.raises(ValueError, match="Guidance must be 1, not 3: the model has no"):
        model.sample(n=1, steps=1, guidance=3)
    assert model.config(guidance=1).guidance == 1
    query = "seed=4&steps=4&guidance=3"
    run, problems = RunSpec.from_query(query, lambda name: model.checkpoint.facts, "net")
    assert (run.sample.seed, run.sample.guidance, problems) == (4, 1, [said])
    nameless = tiny(num_classes=3)
    nameless.info.pop("classes", None)
    nameless.facts.require_guided(3)
