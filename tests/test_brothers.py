"""Faults that were found in use, and their brothers: bad places, names, proxies, homes, pipes."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import ddpm_demo as dd
from ddpm_demo import data as d
from ddpm_demo.cli import main
from ddpm_demo.cli.options import suffix
from ddpm_demo.config import SampleConfig
from ddpm_demo.data import folder as folders
from ddpm_demo.evaluation import inception
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media import encode
from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from ddpm_demo.models.diffusers_format import export_diffusers
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.ui import serve
from ddpm_demo.ui.components.player.export import file_name
from ddpm_demo.ui.server import network, work

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Tiny = Callable[..., Checkpoint]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(6):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(folder / f"{k}.png")
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture
def homeless(monkeypatch: Patch) -> None:
    """Neither HOME nor an entry in the list of users."""
    if os.name != "posix":
        pytest.skip("the list of users is POSIX's")

    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


# No home


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_hub_says_what_to_name(monkeypatch: Patch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        return str(Path("~/x").expanduser())

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(CheckpointError, match=r"No home folder is known.*\(HF_HOME\)"):
        hub.download("you/model")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_no_folder_is_called_by_its_shorthand(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """torch.hub leaves a ~ that it can't expand as it is."""
    pytest.importorskip("torch_fidelity")
    monkeypatch.chdir(tmp_path)
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(ValueError, match="there is no home folder for its ~"):
        inception.inception_weights()
    assert list(tmp_path.iterdir()) == []


# Shorthand in paths


def test_python_takes_the_shorthand_too(photos: Path, tiny: Tiny, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HOME", str(photos.parent))
    monkeypatch.chdir(photos)
    dd.noise("~/photos/1.png", 10, size=8).save("~/noised.png")
    save_checkpoint(photos.parent / "m", tiny())
    model = dd.load("~/m")
    dd.film(model.steps(n=1, steps=2)).save("~/film.gif")
    for _ in dd.train("folder:~/photos", "~/run", images=1, batch_size=1, model=model):
        pass
    made = {"noised.png", "film.gif", "run"}
    assert made <= {path.name for path in photos.parent.iterdir()}
    assert not Path("~").exists()


# Places that can't be what they are named as


@pytest.mark.parametrize("name", ["a.png", "a.json", "a.gif"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"must be a file, .*: this is a folder"):
        suffix(tmp_path / name, Path(name).suffix)


def test_a_file_in_the_place_of_the_data_is_said(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("x")
    with pytest.raises(d.DataError, match=r"file is a file; --data-dir or DDPM_DEMO_DATA names"):
        d.load("mnist", place)


@pytest.mark.parametrize("words", ["folder:", "folder: "])
def test_no_folder_is_not_the_working_folder(words: str, photos: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(d.DataError, match="names no folder; one that does is folder:photos"):
        d.load(words)
    assert len(d.load("folder:.")) == 6


def test_an_export_into_a_file_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"Nothing can be written in .*new: Not a directory"):
        export_diffusers(tiny(norm="group", groups=8), tmp_path / "file" / "new")


def test_a_name_that_weights_can_not_be_read_by_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a name in UTF-8"):
        RunFolder(tmp_path / os.fsdecode(b"run\xff")).check(False)
    RunFolder(tmp_path / "zażółć 🌫").check(False)


# Pictures that are left out, and folders that change


def test_evaluate_says_what_it_leaves_out(
    photos: Path, tiny: Tiny, tmp_path: Path, capsys: Capture
) -> None:
    save_checkpoint(tmp_path / "m", tiny())
    line = f"evaluate --model {tmp_path / 'm'} --metrics bpd --bpd-images 2 --bpd-steps 2"
    assert main([*line.split(), "--dataset", f"folder:{photos}"]) == 0
    assert "skipped files whose names are not those of pictures: 1 .txt" in capsys.readouterr().err


def test_the_app_says_what_it_leaves_out(photos: Path, monkeypatch: Patch) -> None:
    said: list[str] = []
    monkeypatch.setattr(work.gr, "Warning", said.append)
    lines = list(work.loading(f"folder:{photos}", 8, 3, local=True))
    assert set(lines) <= {"Loading the pictures…"}
    assert said == ["Left out: files whose names are not those of pictures: 1 .txt."]


def test_the_app_reads_a_folder_anew_once_it_has_changed(photos: Path) -> None:
    def now() -> d.Images:
        return work.data_of(f"folder:{photos}", 8, 3)

    before = now()
    assert now() is before
    (photos / "0.png").unlink()
    assert len(now()) == 5
    same = folders.folder_state(photos)
    Image.new("RGB", (9, 9)).save(photos / "1.png")
    assert folders.folder_state(photos) != same
    assert int(now().pixels[0].sum()) == 0
    assert (d.state("mnist"), d.state(f"folder:{photos}")) == ("", folders.folder_state(photos))


# Proxies and networks


@pytest.mark.parametrize(
    ("variable", "address", "works"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", True),
        ("http_proxy", "127.0.0.1:9", True),
        ("https_proxy", "http://me:secret@127.0.0.1:9", True),
        ("HTTP_PROXY", "foo://me:secret@127.0.0.1:9", False),
        ("all_proxy", "http://127.0.0.1:port", False),
    ],
)
def test_a_proxy_that_can_not_be_used_is_said(
    variable: str, address: str, works: bool, monkeypatch: Patch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(variable, address)
    if works:
        network.require_proxies()
        httpx.Client().close()  # as Gradio does when it is imported
        return
    with pytest.raises(ValueError, match="The environment names a proxy that can't be used") as bad:
        network.require_proxies()
    assert "secret" not in str(bad.value)


# What files say of themselves


def test_files_name_their_class(tiny: Tiny) -> None:
    classes = tiny(num_classes=3).classes
    run = RunSpec("m", SampleConfig(labels=(1,), guidance=1.5, steps=9, seed=4))
    about = RunSpec("m", run.sample).to_metadata(classes)
    assert about["class"] == "kind 1"
    assert file_name("gif", about) == "ddpm-m-kind-1-w1-5-ddim-9-seed4.gif"
    assert RunSpec.from_metadata(about, classes) == run
    numbered = RunSpec("m", run.sample).to_metadata()
    assert numbered["class"] == "1"
    assert RunSpec.from_metadata(numbered) == RunSpec.from_metadata(numbered, classes) == run
    older = {("label" if key == "class" else key): text for key, text in numbered.items()}
    assert RunSpec.from_metadata(older) == run
    free = RunSpec("m", SampleConfig(labels=None, steps=9)).to_metadata()
    assert file_name("gif", free) == "ddpm-m-any-ddim-9-seed0.gif"
    assert RunSpec.from_metadata(free, classes).sample.labels is None


def test_a_picture_is_kept_whatever_its_model_is_called() -> None:
    """The name of a file can be any bytes; Python keeps those that are no text as surrogates."""
    page = np.full((2, 2, 3), 7, np.uint8)
    for kind in ("png", "gif", "mp4"):
        assert encode.encode([page], kind, metadata={"model": os.fsdecode(b"m\xff")})
    with Image.open(io.BytesIO(encode.encode([page], "png", metadata={"model": "m\udcff"}))) as png:
        assert png.info["model"] == "m?"


# Ends


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_stopped_tidies_up(name: str, tmp_path: Path, capsys: Capture) -> None:
    """`models` stands for all of them; its temporary folder for what any of them makes."""
    number, left = getattr(signal, name), tmp_path / "left"

    def stopped(*_: Any) -> None:
        left.mkdir()
        try:
            signal.raise_signal(number)
        finally:
            left.rmdir()

    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpm_demo.models.zoo.available", stopped)
        assert main(["models"]) == 130
    assert capsys.readouterr().err == "ddpm_demo: Interrupted.\n"
    assert signal.getsignal(number) == before
    assert not left.exists()


def test_a_command_runs_in_any_thread(capsys: Capture) -> None:
    """Only the main one may set what a signal does."""
    thread = threading.Thread(target=main, args=(["models", "--json"],))
    thread.start()
    thread.join()
    assert capsys.readouterr().out.startswith("[")


def test_a_closed_pipe_is_no_error(zoo: Path) -> None:
    command = [sys.executable, "-m", "ddpm_demo", "models"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
    pipes["env"] = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    child = subprocess.Popen(command, **pipes)
    assert child.stdout
    assert child.stderr
    child.stdout.close()  # as `| head -0` does
    said = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(60), said) == (1, "")


def test_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def none(*_: Any) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", none)
    said = "No temporary file can be written; set TMPDIR"
    assert main(["models"]) == 2
    assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        serve.options_of(["--port", "0"])
    assert said in capsys.readouterr().err
