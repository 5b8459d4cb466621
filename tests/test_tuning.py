"""The tab "Fine-tune" without a browser: exactness, turns, what goes wrong, and results."""

import errno
import html
import json
import os
import pickle
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo import data as d
from ddpm_demo.config import SampleConfig
from ddpm_demo.evaluation.classifier import Classifier, ClassifierConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.trainer import Trainer
from ddpm_demo.ui.components.controls import ModelChoice, find
from ddpm_demo.ui.finetune import asked, plans, results, session
from ddpm_demo.ui.finetune import handlers as tab
from ddpm_demo.ui.finetune.turns import Turns
from ddpm_demo.ui.server import runtime, settings, work

ALL = asked.ALL
STEPS = 6


@pytest.fixture(autouse=True)
def app(zoo: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bases "tiny", "large" and "colour", 20 pictures, and an app of their own."""
    save_checkpoint(zoo / "tiny", tiny(T=10))
    save_checkpoint(zoo / "large", tiny(size=16))
    save_checkpoint(zoo / "colour", tiny(channels=3))
    fresh = runtime.Models(load_checkpoint, 10**9)
    monkeypatch.setattr(runtime, "model", fresh)
    monkeypatch.setattr(session, "EVERY", 0.0)  # every step is told
    monkeypatch.setattr(tab, "turns", Turns())
    work._load.cache_clear()
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
    """Starts one in a folder, `steps`, `batch`, `lr` and so on as the controls, and lists it."""

    def start(
        folder: str = "a", *, resume: bool = False, local: bool = True, **changes: Any
    ) -> Iterator[Any]:
        (tmp_path / folder).mkdir(exist_ok=True)
        usual = {"base": "tiny", "source": f"folder:{app}", "only": ALL, "steps": STEPS}
        usual |= {"unit": "steps", "batch": 4, "lr": 1e-3, "grids": 2, "device": "auto"}
        base, *controls = (usual | changes).values()
        place, ticket, _ = tab.ask(str(tmp_path / folder))
        made = None
        for *said, made in tab.run(local, resume, place, ticket, {}, base, *controls):
            yield (*said, made)
        line, *rest = results.listed(choice, {}, made)
        yield (gr.skip(), line, *rest)

    return start


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "run" / "model.safetensors")[0]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[k], second[k]) for k in first)


def lines(said: list[Any]) -> list[str]:
    return [line for _, line, *_ in said if isinstance(line, str)]


def frames(said: list[Any]) -> list[int]:
    """The steps of the film that the page has in the end."""
    steps: list[int] = []
    for screen, *_ in said:
        message = json.loads(screen) if isinstance(screen, str) else {}
        steps = [] if "run" in message else steps
        steps += [frame["step"] for frame in message.get("frames", ())]
    return steps


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
    assert frames(said) == sorted({0, steps, 3, 6})  # the film has both parts


def test_a_run_of_the_app_is_shipped_like_one_of_the_command_line(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpm_demo.publishing import cards
    from ddpm_demo.publishing.ship import ship

    monkeypatch.setattr(cards, "SHOWN", 2)
    list(tune())
    run, folder = RunFolder(tmp_path / "a" / "run"), tmp_path / "tiny-all"
    assert [row["step"] for row in run.rows()] == [3, 6]
    assert [p.name for p in run.previews()] == [f"preview-{n:09d}.png" for n in (0, 12, 24)]
    shipped = ship(run.path, folder, cards.Story("abc", "It is tiny."), sample={"steps": 2})
    assert shipped.info["base"] == "tiny"
    with Image.open(folder / "morph.gif") as film:
        assert getattr(film, "n_frames", 1) in (2, 3)  # equal frames are one
    text = (folder / "README.md").read_text()
    assert "finetune --model tiny --dataset folder:pictures --steps 6 --batch-size 4" in text


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
        idle = (*(gr.skip(),) * 3, None)
        assert [next(run) for _ in range(5)] == [idle] * 5  # where Stop takes effect
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
    """On ZeroGPU each runs in another process, and only files and what is pickled come back."""
    list(tune("whole"))
    resumed: list[bool] = []

    def elsewhere(fn: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def run(*args: Any) -> Iterator[Any]:
            resumed.extend(args[2:])
            for given in fn(*pickle.loads(pickle.dumps(args))):
                yield pickle.loads(pickle.dumps(given))

        return run

    for name in ("_before", "_chunk"):
        monkeypatch.setattr(session, name, elsewhere(getattr(session, name)))
    monkeypatch.setattr(session, "CHUNK", 0.0)  # over after a step
    said = list(tune("parts"))
    assert resumed == [False] + [True] * (STEPS - 1)
    assert same(tmp_path / "parts", tmp_path / "whole")
    assert frames(said) == [*range(STEPS + 1)]


def test_a_run_at_its_end_has_nothing_to_continue(tune: Callable[..., Any]) -> None:
    list(tune())
    with pytest.raises(gr.Error, match="This run has had its 6 steps"):
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
    monkeypatch.setattr(session, "CHUNK", chunk)
    said = lines(list(tune(batch=16, steps=1)))
    halved = [line for line in said if "does not fit" in line]
    assert halved == [
        f"A batch of {n} does not fit into the GPU's memory; going on with {n // 2}."
        for n in (16, 8)
    ]
    about = load_tensors(tmp_path / "a" / "run" / "state.safetensors")[1]
    assert (about["images"], about["step"]) == (16, 4)  # as many pictures
    assert lines(list(tune(batch=16, resume=True, steps=2)))  # Continue keeps to the small one
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
    assert seen == [0, 4, 8, 12, 12, 14, 16, 18, 20, 22]  # from the state after step 3 on
    assert said[-1].startswith("“tiny-all-9 (yours)”")


def test_a_full_disk_keeps_what_was_reached(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(tune("whole"))
    replace, room = os.replace, 5  # the first grid, then state, weights, log and grid of step 3

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
        ({"lr": 0}, "lr must be a number above 0"),
        ({"lr": 10}, "lr must be"),
        ({"lr": None}, "lr must be"),
        ({"batch": 21}, "batch_size must be a whole number from 1 to 20 (the number of"),
        ({"batch": plans.BATCH_MOST + 1}, "Batch size must be"),
        ({"steps": 0}, "Steps must be"),
        ({"steps": 1.5}, "Steps must be"),
        ({"grids": 0}, "Grids must be"),
        (
            {"unit": "epochs", "steps": 0},
            "Epochs must be a number above 0 and up to 10,000, not 0.",
        ),
        ({"unit": "epochs", "steps": 1e5}, "Epochs must be"),
        ({"unit": "hours"}, "Unit of the length must be steps or epochs"),
        ({"device": "tpu"}, "Device must be auto"),
        ({"only": "ship"}, "Class must be"),
        ({"source": "folder:/nowhere"}, "There is no folder /nowhere"),
        ({"source": "imagenet"}, "Dataset must be"),
        ({"local": False}, "must be mnist, fashion_mnist or cifar10, not"),
        ({"base": "nobody"}, "Model must be"),
        ({"base": "/etc/passwd"}, "Model must be"),
        ({"resume": True}, "Nothing to continue yet. Press Start first."),
    ],
)
def test_bad_values_get_one_sentence(
    tune: Callable[..., Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    said: list[Any] = []
    with pytest.raises(gr.Error) as caught:
        said.extend(tune(**changes))
    sentence = html.unescape(caught.value.message)
    assert message in sentence
    assert "\n" not in sentence
    assert lines(said)[-1] == caught.value.message
    tab.turns.ask(str(tmp_path / "a"))  # and the next one may begin


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
    values = asked.Asked("mnist", ALL, 1, "steps", 4, 1e-3, 1, "auto")
    for base in ("large", "colour"):
        with pytest.raises(ValueError, match="Shape of the pictures must be"):
            list(plans.plan(True, find(base, {}), values))


def test_a_second_one_of_a_visitor_waits_for_no_queue(tune: Callable[..., Any]) -> None:
    first = tune()
    next(first)
    with pytest.raises(gr.Error, match="still running"):
        next(tune())
    next(tune("b"))  # another visitor's may
    assert lines(list(first))[-1].startswith("“tiny-all-6 (yours)”")
    list(tune(steps=1))


def test_one_that_waits_is_the_only_one(tmp_path: Path) -> None:
    """Gradio's queue has it, and would have the next one as well."""
    folder, ticket, line = tab.ask(str(tmp_path))
    assert line == "Waiting for its turn…"
    with pytest.raises(gr.Error, match="is already waiting for its turn"):
        tab.ask(folder)
    assert tab.stop(folder) == ("Cancelled before it started.", 1)
    _, again, _ = tab.ask(folder)
    assert list(tab.run(True, False, folder, ticket, {}, "tiny")) == []  # the old one: nothing
    assert not (tmp_path / session.STOP).exists()
    with tab.turns.begun(folder, again) as there:
        assert there
        with pytest.raises(gr.Error, match="still running"):
            tab.ask(folder)
    with tab.turns.begun(folder, again) as there:
        assert not there


def test_stop_before_the_first_step(tune: Callable[..., Any], tmp_path: Path) -> None:
    said = []
    for message in tune():
        said.append(message)
        if lines([message]) == [session.DRAWING]:
            tab.stop(str(tmp_path / "a"))
    assert lines(said)[-1] == "Stopped before the first step."
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_a_closed_tab_frees_the_visitor(tune: Callable[..., Any], tmp_path: Path) -> None:
    walk = tune(steps=100)
    for message in walk:
        if any(line.startswith("Step") for line in lines([message])):
            break
    walk.close()  # what Gradio does
    tab.turns.ask(str(tmp_path / "a"))
    work.forget(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_continue_with_other_settings_is_refused(tune: Callable[..., Any], tmp_path: Path) -> None:
    list(tune(steps=1))
    other = load_checkpoint("tiny")
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    save_checkpoint(tmp_path / "checkpoints" / "tinier", other)
    weights = "base.name was 'tiny' and is 'tinier'; the base has other weights now"
    for changes, what in (
        ({"lr": 1e-4}, "train.lr was 0.001 and is 0.0001"),
        ({"base": "tinier"}, weights),
    ):
        with pytest.raises(gr.Error) as caught:
            list(tune(resume=True, **changes))
        said = html.unescape(caught.value.message)
        assert said == f"Continue needs the same settings as before: {what}."
    list(tune(resume=True, steps=2))


def test_a_result_that_found_no_room_is_kept_by_continue(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError("x.safetensors was not written: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(results, "save_file", full)
        with pytest.raises(gr.Error, match="No space left on device"):
            list(tune())
    assert lines(list(tune(resume=True)))[-1].startswith("“tiny-all-6 (yours)”")
    with pytest.raises(gr.Error, match="This run has had its 6 steps"):
        list(tune(resume=True))


def test_epochs_and_device_arrive(tune: Callable[..., Any], tmp_path: Path) -> None:
    list(tune(unit="epochs", steps=1.2, batch=5, device="cpu"))
    about = load_tensors(tmp_path / "a" / "run" / "state.safetensors")[1]
    assert (about["step"], about["images"]) == (5, 25)  # of 20 pictures


def test_a_run_ends_with_its_turn_and_can_be_continued(
    tune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.LANE_MINUTES, "0")
    said = list(tune())
    assert lines(said)[-1].startswith("“tiny-all-2 (yours)”")  # the step after is its last
    why = "Stopped at step 2, after the limit of 0.01 s. Continue goes on."
    assert any(why in screen for screen, *_ in said if isinstance(screen, str))
    monkeypatch.delenv(settings.LANE_MINUTES)
    assert lines(list(tune(resume=True)))[-1].startswith("“tiny-all-6 (yours)”")


def test_a_listed_model_keeps_its_weights(
    tune: Callable[..., Any], choice: ModelChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run of as many steps, or an upload of that name, becomes one of its own."""
    list(tune(steps=1))
    first = (tmp_path / "a" / "tiny-all-1.safetensors").read_bytes()
    assert lines(list(tune(steps=1, lr=1e-4)))[-1].startswith("“tiny-all-1-2 (yours)”")
    monkeypatch.setattr(results, "get_upload_folder", lambda: str(tmp_path / "up"))
    (tmp_path / "up").mkdir()
    upload = tmp_path / "up" / "tiny-all-1.safetensors"
    upload.write_bytes((tmp_path / "a" / "tiny-all-1-2.safetensors").read_bytes())
    line, own, _ = results.add_file(choice, str(tmp_path / "a"), {}, {"path": str(upload)})
    assert line.startswith("“tiny-all-1-3 (yours)”")
    assert Path(own["tiny-all-1-3 (yours)"]).read_bytes() == upload.read_bytes()
    assert (tmp_path / "a" / "tiny-all-1.safetensors").read_bytes() == first


@pytest.mark.parametrize("kind", ["pickle", "text", "elsewhere"])
def test_an_upload_that_is_no_model_is_refused(
    choice: ModelChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    monkeypatch.setattr(results, "get_upload_folder", lambda: str(tmp_path / "up"))
    (tmp_path / "up").mkdir()
    path = tmp_path / ("up" if kind != "elsewhere" else "") / "a.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    if kind == "text":
        path = path.rename(path.with_suffix(".txt"))
    updates = results.add_file(choice, str(tmp_path), {}, {"path": str(path)})
    assert updates == (gr.skip(),) * 3
    wanted = {
        "pickle": "a.safetensors is not a whole safetensors file",
        "text": "File must be a .safetensors file",
        "elsewhere": "File must be an upload of yours",
    }
    assert len(said) == 1
    assert wanted[kind] in html.unescape(said[0])


# The data


def test_a_download_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And goes on without whoever asked for it."""
    gate, found = threading.Event(), d.Images(torch.zeros(3, 1, 8, 8).byte(), torch.zeros(3).long())

    def slow(*_args: Any, **_options: Any) -> d.Images:
        assert gate.wait(60)
        return found

    monkeypatch.setattr(d, "load", slow)
    monkeypatch.setattr(d, "arrived", lambda _: (34_000_000, 170_498_071))
    monkeypatch.setattr(work, "EVERY", 0.01)
    steps = work.loading("cifar10", 8, 1)
    assert next(steps).startswith("Downloading cifar10: 34 of 170 MB<progress")
    steps.close()
    steps = work.loading("cifar10", 8, 1)
    next(steps)
    gate.set()
    told: list[d.Images] = []

    def waited() -> Iterator[str]:
        told.append((yield from steps))

    assert all(line.startswith("Downloading") for line in waited())
    assert told[0] is found


def test_no_network_is_one_sentence(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def fail(*_args: Any, **_options: Any) -> None:
        raise OSError("<urlopen error: no network>")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fail)
    monkeypatch.setenv("DDPM_DEMO_DATA", str(tmp_path / "data"))
    with pytest.raises(gr.Error) as caught:
        list(tune(source="cifar10"))
    said = html.unescape(caught.value.message)
    assert said.startswith(f"cifar10 is not in {tmp_path / 'data'}, or not whole, and can't be")
    assert "no network" in said
    assert "\n" not in said
    list(tune(steps=1))


# Results


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"size": 8, "channels": 1, "widths": (8, 8, 8, 8), "dim": 5}
    judge = Classifier(ClassifierConfig(("a", "b", "c"), **shape), {}).eval()
    monkeypatch.setattr(results, "load_classifier", lambda name: judge)
    return judge


def result_of(said: list[Any]) -> results.Result:
    return next(made for *_, made in reversed(said) if isinstance(made, results.Result))


def test_the_meter_counts_what_the_judge_says(
    tune: Callable[..., Any], judge: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "JUDGED", 32)
    made = result_of(list(tune(steps=3, lr=1e-2))[:-1])
    *before, plot = results.forgetting(made)
    assert "Samples before: 16 of 32" in before[1]
    bars = ET.fromstring(plot)
    got = [text.text for text in bars.findall(".//{*}text") if "%" in (text.text or "")]
    wanted = []
    for source in ("tiny", str(made.path)):
        *_, last = generate(load_checkpoint(source), SampleConfig(steps=10, n=32))
        pixels = torch.from_numpy(to_uint8(last.x_t).copy()).permute(0, 3, 1, 2)
        counts = torch.bincount(judge.extract(pixels)[1].argmax(1), minlength=3)
        wanted += [f"{100 * int(count) / 32:.1f} %" for count in counts]
    assert got == wanted
    with pytest.raises(gr.Error, match="Nothing to compare yet"):
        list(results.forgetting(None))


def test_a_visitor_can_not_push(tune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = result_of(list(tune(steps=1))[:-1])
    monkeypatch.setattr(results.publish, "push", lambda path, repo: f"https://hub/{repo}")
    assert list(results.push(True, made, " me/x "))[-1] == "Pushed to https://hub/me/x"
    for local, result, repo, message in (
        (False, made, "me/x", "Visitors can't push"),
        (True, None, "me/x", "There is no model of yours yet. Press Start first."),
        (True, made, "  ", "Repository must be a name such as YOU/cifar10-ship"),
        (True, made, None, "Repository must be"),
    ):
        with pytest.raises(gr.Error) as caught:
            list(results.push(local, result, repo))
        assert message in html.unescape(caught.value.message)
