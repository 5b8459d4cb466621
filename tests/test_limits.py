"""What strangers may ask for, how its host raises that, and what the app keeps on the disk."""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.ui import serve
from ddpm_demo.ui.forward import asked as forward
from ddpm_demo.ui.forward.tab import build_forward_tab
from ddpm_demo.ui.generate import handlers as generate
from ddpm_demo.ui.server import disk, runtime, settings, work

SAMPLED = (0, "trailing", "beta_tilde", 0, True, ["any"], 1, 20)
"""The controls after the number of pictures."""


@pytest.fixture
def models(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app of their own, for strangers, where a step takes 15.1 s for each picture."""
    fresh = runtime.Models(load_checkpoint, 10**9)
    monkeypatch.setattr(runtime, "model", fresh)
    monkeypatch.setattr(settings, "strangers", True)
    monkeypatch.setattr(runtime, "seconds", lambda source: {1: 15.1})
    for variable in (settings.RUN_MINUTES, settings.LANE_MINUTES):
        monkeypatch.delenv(variable, raising=False)


def run(steps: int, n: int, sampler: str = "ddim") -> list[Any]:
    return list(generate.run("", {}, "tiny", sampler, steps, n, *SAMPLED, "", ""))


@pytest.mark.usefixtures("models")
def test_a_run_of_strangers_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(19, 1)
    with pytest.raises(gr.Error, match="about 5 min, and the limit here is 5 min"):
        run(20, 1)
    with pytest.raises(gr.Error, match=r"about 6 min, .* 5 min\. Take fewer steps or pictures\."):
        run(12, 2)
    with pytest.raises(gr.Error, match="about 9 min, and"):  # two calls a step
        run(19, 1, "heun")
    line = generate.how_long({}, "tiny", "ddim", 12, 2, *SAMPLED)
    assert line == "About 6 min: more than the limit of 5 min."

    monkeypatch.setenv(settings.RUN_MINUTES, "10")
    assert run(12, 2)
    monkeypatch.setenv(settings.RUN_MINUTES, "0.1")
    with pytest.raises(gr.Error, match=r"the limit here is 6\.0 s"):
        run(1, 1)
    monkeypatch.delenv(settings.RUN_MINUTES)
    monkeypatch.setattr(settings, "strangers", False)
    assert run(20, 2)


@pytest.mark.parametrize("words", ["many", "", "-1", "nan"])
def test_a_limit_that_is_no_number(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.RUN_MINUTES, words)
    with pytest.raises(ValueError, match="RUN_MINUTES must be a number of minutes"):
        settings.most_seconds(settings.RUN_MINUTES, 5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(None, None), ("class:secret", ("class", "secret")), (" class :a:b c", ("class", "a:b c"))],
)
def test_the_password_of_the_environment(
    words: str | None, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(settings.AUTH, raising=False)
    if words is not None:
        monkeypatch.setenv(settings.AUTH, words)
    assert settings.password() == expected


@pytest.mark.parametrize("words", ["", "secret", ":secret", "class:"])
def test_a_bad_password_ends_the_start_and_is_not_told(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(settings.AUTH, words)
    with pytest.raises(SystemExit, match="2"):
        serve.main([])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "app.py: error: DDPM_DEMO_AUTH must be USER:PASSWORD, not '…'."


# The disk


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The app's folder."""
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    disk.own_temporary_folder()
    (tmp_path / "gradio").mkdir()
    return tmp_path


def test_uploads_and_what_broken_ones_left_are_deleted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = place / "gradio"
    example, upload, part = uploads / "a" / "1.png", uploads / "b" / "2.png", uploads / "tmpabc"
    for path in (example, upload, part):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
    block = SimpleNamespace(keep_in_cache={str(example)})
    gone = str(uploads / "c" / "3.png")
    names = {str(example), str(upload), gone}
    demo: Any = SimpleNamespace(blocks={1: block}, upload_file_set=names)

    disk.sweep(demo)  # all but new
    assert [path.exists() for path in (example, upload, part)] == [True] * 3
    assert gone not in names
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + disk.UPLOAD_AGE + 1)
    disk.sweep(demo)
    assert [path.exists() for path in (example, upload, part)] == [True, False, True]
    assert names == {str(example)}
    monkeypatch.setattr(time, "time", lambda: now() + disk.PART_AGE + 1)
    disk.sweep(demo)
    assert sorted(path.name for path in uploads.rglob("*")) == ["1.png", "a"]


def test_examples_and_films_outlive_the_files_of_visitors(place: Path) -> None:
    """What the page shows from the start is never deleted, however old."""
    from gradio.route_utils import delete_files_created_by_app

    with gr.Blocks() as demo:
        build_forward_tab()
        gr.Image(forward.EXAMPLES[1], interactive=False)
    before = sorted(place.rglob("*.jpg"))
    assert len(before) == len(forward.EXAMPLES)
    delete_files_created_by_app(demo, age=0)
    assert sorted(place.rglob("*.jpg")) == before


def test_strangers_can_not_fill_the_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MOST", 1000)
    (place / "gradio" / "large").write_bytes(bytes(1001))
    disk.require_room()  # the host's own business
    monkeypatch.setattr(settings, "strangers", True)
    with pytest.raises(OSError, match="has no room for more files just now"):
        disk.require_room()
    with pytest.raises(gr.Error, match="no room"):
        work.own_folder(None)
    (place / "gradio" / "large").unlink()
    assert Path(work.own_folder(None)).parent == place


def test_what_strangers_tuned_is_deleted_when_its_time_is_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio deletes it with the session, but forgets it where there are very many sessions."""
    old = Path(work.own_folder(None))
    (old / "run").mkdir()
    (old / "run" / "state").write_bytes(b"weights")
    demo: Any = SimpleNamespace(blocks={}, upload_file_set=set())
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + disk.TUNING_AGE + 1)
    disk.sweep(demo)
    assert old.exists()  # the host's own
    monkeypatch.setattr(settings, "strangers", True)
    monkeypatch.setattr(time, "time", lambda: now() + disk.TUNING_AGE - 60)
    disk.sweep(demo)
    assert old.exists()
    monkeypatch.setattr(time, "time", lambda: now() + disk.TUNING_AGE + 1)
    disk.sweep(demo)
    assert not old.exists()
