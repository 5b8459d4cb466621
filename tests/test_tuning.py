"""The tab "Fine-tune" without a browser: exactness, what goes wrong, and the push to the Hub."""

import errno
import html
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ddpm_demo import data as d
from ddpm_demo.checkpoint import Checkpoint, load_checkpoint, load_tensors, save_checkpoint
from ddpm_demo.train import Trainer
from ddpm_demo.ui import finetune as tab
from ddpm_demo.ui import runtime
from ddpm_demo.ui.generate import ModelChoice

ALL = tab.ALL
STEPS = 6


@pytest.fixture(autouse=True)
def app(zoo: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bases "tiny", "large" and "colour", 20 pictures, and an app of their own."""
    save_checkpoint(zoo / "large", tiny(size=16))
    save_checkpoint(zoo / "colour", tiny(channels=3))
    fresh = runtime.Models(load_checkpoint, 10**9)
    monkeypatch.setattr("ddpm_demo.ui.generate.model", fresh)
    monkeypatch.setattr(runtime, "model", fresh)
    monkeypatch.setattr(tab, "EVERY", 0.0)  # every step is told
    pictures = zoo.parent / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(pictures / f"{i}.png")
    return pictures


@pytest.fixture
def choice() -> ModelChoice:
    return ModelChoice(gr.Dropdown(["tiny"]), gr.State({}))


@pytest.fixture
def tune(app: Path, choice: ModelChoice, tmp_path: Path) -> Callable[..., Iterator[Any]]:
    """Starts one in a folder: `steps`, `batch`, `lr` and so on as the controls."""

    def start(folder: str = "a", *, resume: bool = False, **changes: Any) -> Iterator[Any]:
        (tmp_path / folder).mkdir(exist_ok=True)
        usual = {"base": "tiny", "source": f"folder:{app}", "only": ALL, "steps": STEPS}
        base, *controls = ({**usual, "batch": 4, "lr": 1e-3, "grids": 2} | changes).values()
        return tab.run(choice, resume, str(tmp_path / folder), {}, base, *controls)

    return start


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "run" / "model.safetensors")[0]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[k], second[k]) for k in first)


def lines(said: list[Any]) -> list[str]:
    return [line for _, line, *_ in said if isinstance(line, str)]


def test_stopped_and_continued_is_as_unbroken(tune: Callable[..., Any], tmp_path: Path) -> None:
    list(tune("whole"))
    said = []
    for message in tune("parts"):
        said.append(message)
        if any(line.startswith("Step 2 of 6") for line in lines([message])):
            tab.stop(str(tmp_path / "parts"))
    steps = load_tensors(tmp_path / "parts" / "run" / "state.safetensors")[1]["step"]
    assert 2 <= steps < STEPS
    assert lines(said)[-1] == f"“tiny-all-{steps} (yours)” is in the model list of Generate."
    assert not same(tmp_path / "parts", tmp_path / "whole")
    said = list(tune("parts", resume=True))
    assert lines(said)[-1] == "“tiny-all-6 (yours)” is in the model list of Generate."
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_no_step_is_made_while_somebody_waits_for_pictures(
    tune: Callable[..., Any], busy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, steps = Trainer.advance, []
    monkeypatch.setattr(
        Trainer, "advance", lambda self, lr: (steps.append(self.step), advance(self, lr))[1]
    )
    run = tune(grids=1)
    while not any(line.startswith("Step 1 of 6") for line in lines([next(run)])):
        pass
    with busy():
        next(run)  # after the step that was due
        made = len(steps)
        assert [next(run) for _ in range(5)] == [(gr.skip(),) * 6] * 5  # where Stop takes effect
        assert len(steps) == made
    assert lines(list(run))[-1].startswith("“tiny-all-6 (yours)”")
    assert len(steps) > made


def test_pictures_on_the_way_are_drawn_as_those_of_visitors(
    tune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], runtime.denoiser
    monkeypatch.setattr(runtime, "denoiser", lambda *a, **k: (made.append(1), real(*a, **k))[1])
    list(tune(grids=2))
    assert len(made) == 3  # before, and two on the way


def test_in_chunks_of_a_gpus_time_it_is_as_unbroken(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(tune("whole"))
    resumed = []
    chunk = tab._chunk

    def counted(*args: Any) -> Iterator[Any]:
        resumed.append(args[-1])
        yield from chunk(*args)

    monkeypatch.setattr(tab, "_chunk", counted)
    monkeypatch.setattr(tab, "CHUNK", 0.0)  # over after a step
    list(tune("parts"))
    assert resumed == [False] + [True] * (STEPS - 1)
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_a_run_at_its_end_has_nothing_to_continue(tune: Callable[..., Any]) -> None:
    list(tune())
    with pytest.raises(gr.Error, match="steps is 6; allowed is more than this run has had"):
        list(tune(resume=True))
    assert lines(list(tune(resume=True, steps=8)))[-1].startswith("“tiny-all-8 (yours)”")


@pytest.mark.parametrize("chunk", [1e9, 0.0])
def test_too_little_memory_halves_the_batch_and_says_so(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: float
) -> None:
    most = 4
    advance = Trainer.advance

    def short(self: Trainer, lr: float) -> Any:
        if self.config.batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return advance(self, lr)

    monkeypatch.setattr(Trainer, "advance", short)
    monkeypatch.setattr(tab, "CHUNK", chunk)
    said = lines(list(tune(batch=16)))
    halved = [line for line in said if "does not fit" in line]
    assert halved == [
        f"A batch of {n} does not fit into the GPU's memory; going on with {n // 2}."
        for n in (16, 8)
    ]
    about = load_tensors(tmp_path / "a" / "run" / "state.safetensors")[1]
    assert (about["images"], about["step"]) == (16 * STEPS, 4 * STEPS)  # as many pictures
    assert lines(list(tune(batch=16, resume=True, steps=8)))  # Continue keeps to the small one
    most = 0
    with pytest.raises(gr.Error, match="A batch of one picture does not fit into the GPU"):
        list(tune("b"))


def test_memory_that_runs_out_later_loses_nothing(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, seen = Trainer.advance, []

    def short(self: Trainer, lr: float) -> Any:
        if self.config.batch_size > 2 and self.step == 4:  # the first grid came after step 3
            raise torch.OutOfMemoryError
        seen.append(self.images)
        return advance(self, lr)

    monkeypatch.setattr(Trainer, "advance", short)
    said = lines(list(tune()))
    assert sum("going on with 2" in line for line in said) == 1
    timed, run = seen[:3], seen[3:]
    assert timed == [0, 4, 8]
    assert run == [0, 4, 8, 12, 12, 14, 16, 18, 20, 22]  # from the state after step 3 on
    assert said[-1].startswith("“tiny-all-9 (yours)”")


def test_a_full_disk_keeps_what_was_reached(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(tune("whole"))
    replace, room = os.replace, 2  # the state and the weights after step 3

    def full(source: Any, target: Any) -> None:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(gr.Error) as caught:
            list(tune("parts"))
    message = html.unescape(caught.value.message)
    assert re.fullmatch(
        r"\S+/state\.safetensors was not written: No space left on device\.", message
    )
    folder = tmp_path / "parts" / "run"
    assert load_checkpoint(folder).info["images"] == 12
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    list(tune("parts", resume=True))  # there is room again
    assert same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0}, "lr is 0; allowed is a number above 0"),
        ({"lr": 10}, "lr is 10"),
        ({"lr": None}, "lr is None"),
        ({"batch": 21}, "batch_size is 21; allowed is a whole number from 1 to 20"),
        ({"batch": tab.BATCH_MOST + 1}, "batch size is 2049"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"grids": 0}, "grids is 0"),
        ({"only": "ship"}, "class is 'ship'"),
        ({"source": "folder:/nowhere"}, "There is no folder /nowhere"),
        ({"source": "imagenet"}, "dataset is 'imagenet'"),
        ({"base": "nobody"}, "model is 'nobody'"),
        ({"base": "/etc/passwd"}, "model is '/etc/passwd'"),
        ({"resume": True}, "run to continue is None; allowed is one of yours: Start"),
    ],
)
def test_bad_values_get_one_sentence(
    tune: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(gr.Error) as caught:
        list(tune(**changes))
    said = html.unescape(caught.value.message)
    assert message.replace("a number above", "above") in said
    assert "\n" not in said
    assert not tab._busy
    list(tune(steps=1))  # and the next one runs


@pytest.mark.parametrize("base", ["large", "colour"])
def test_pictures_are_fitted_to_a_base_of_another_shape(
    tune: Callable[..., Any], tmp_path: Path, base: str
) -> None:
    """A folder's pictures can be had in any size and colours; a fixed data set is refused."""
    list(tune(base=base, steps=1))
    result = load_checkpoint(tmp_path / "a" / "run").model.config
    assert result == load_checkpoint(base).model.config


def test_data_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = d.Images(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.zeros(20).long())
    monkeypatch.setattr(d, "load", lambda *_args, **_options: grey)
    tab._load.cache_clear()
    for base in ("large", "colour"):
        with pytest.raises(ValueError, match="shape of the pictures is"):
            tab.plan(load_checkpoint(base), "mnist", ALL, 1, 4, 1e-3, 1)
    tab._load.cache_clear()


def test_a_second_one_of_a_visitor_waits_for_no_queue(tune: Callable[..., Any]) -> None:
    first = tune()
    next(first)
    with pytest.raises(gr.Error, match="still running"):
        next(tune())
    next(tune("b"))  # another visitor's may
    assert lines(list(first))[-1].startswith("“tiny-all-6 (yours)”")
    list(tune(steps=1))


def test_a_closed_tab_frees_the_visitor(tune: Callable[..., Any], tmp_path: Path) -> None:
    walk = tune(steps=100)
    for message in walk:
        if any(line.startswith("Step") for line in lines([message])):
            break
    walk.close()  # what Gradio does
    assert not tab._busy
    tab.forget(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


# The push to the Hub

TOKEN = "hf_aVerySecretToken"


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a stand-in for the Hub was asked for."""
    asked: list[tuple[Any, ...]] = []

    class Hub:
        def create_repo(self, repo: str, exist_ok: bool) -> str:
            if repo == "nobody/nothing":
                raise OSError(f"401 Unauthorized for Bearer {TOKEN}\nlong\ntrace")
            asked.append(("create", repo, exist_ok))
            return f"https://huggingface.co/{repo}"

        def upload_file(self, *, path_or_fileobj: Any, path_in_repo: str, repo_id: str) -> None:
            data = path_or_fileobj
            data = data if isinstance(data, bytes) else Path(data).read_bytes()
            asked.append(("upload", repo_id, path_in_repo, data))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return asked


def test_a_push_has_weights_and_card_and_no_token(
    tune: Callable[..., Any],
    pushed: list[tuple[Any, ...]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    list(tune())
    said = tab.push(str(tmp_path / "a"), " me/tiny-all ")
    assert said == "Pushed to https://huggingface.co/me/tiny-all"
    assert pushed[0] == ("create", "me/tiny-all", True)
    files = {name: data for _, _, name, data in pushed[1:]}
    assert sorted(files) == ["README.md", "model.safetensors"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "model.safetensors").write_bytes(files["model.safetensors"])
    again = load_checkpoint(tmp_path / "again")
    assert again.info["base"] == "tiny"
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "ddpm_demo"
    assert "fine-tuned from `tiny`" in text
    with pytest.raises(gr.Error) as caught:
        tab.push(str(tmp_path / "a"), "nobody/nothing")
    assert caught.value.message.startswith("401 Unauthorized for Bearer")
    shown = [said, caught.value.message, caplog.text, *capfd.readouterr()]
    assert not any(TOKEN in words for words in [*shown, *map(str, files.values())])


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, "me/x", "No Hugging Face login here: run `hf auth login`, or set HF_TOKEN."),
        (TOKEN, "  ", "repository is '  '; allowed is such as YOU/cifar10-ship."),
        (TOKEN, None, "repository is None"),
    ],
)
def test_a_push_that_can_not_be(
    tune: Callable[..., Any],
    pushed: list[tuple[Any, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    repo: str | None,
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(gr.Error, match="result is None; allowed is a fine-tuning of yours: Start"):
        tab.push(str(tmp_path / "none"), "me/x")
    list(tune(steps=1))
    with pytest.raises(gr.Error) as caught:
        tab.push(str(tmp_path / "a"), repo)
    assert message in html.unescape(caught.value.message)
    assert pushed == []
