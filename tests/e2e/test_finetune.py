"""The tab "Fine-tune" in a real browser, on a tiny model and made-up pictures."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.media import convert, encode
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.finetune import finetune
from ddpm_demo.training.trainer import Trainer

pytestmark = pytest.mark.e2e
STEPS, TRAINS = 20, re.compile(r"Step \d+ of")
RECORDED = "plain-red: 20 steps of 8 pictures, recorded on another machine in 9.0 s"
NOW = "() => document.querySelectorAll('#tuner [data-part=stage] canvas')[1].toDataURL()"
STEP = "+(document.querySelector('#tuner [data-step]')?.dataset.step ?? -1)"
FRAMES = "+(document.querySelector('#tuner [data-frames]')?.dataset.frames || 0)"


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.iterdir()))).hexdigest()


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Path:
    place = Path(tmp_path_factory.mktemp("tune"))
    torch.manual_seed(0)
    config = ModelConfig(size=8, channels=3, width=16, multipliers=(1, 2), attention=(4,))
    base = Checkpoint(UNet(config), DiffusionConfig(T=20), {"sample": {"steps": 7}})
    save_checkpoint(place / "zoo" / "plain", base)
    base.info |= {"base": "plain", "train": {"batch_size": 8, "lr": 0.005}}
    folder = save_checkpoint(place / "zoo" / "plain-red", base).parent
    reds = np.zeros((3, 16, 8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    sheets = [convert.grid(red // k, scale=4) for k, red in zip((3, 2, 1), reds, strict=True)]
    encode.write(folder / "morph.gif", sheets)
    log = [{"step": k, "seconds": 0.45 * k, "train": 1 / k} for k in (10, 20)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    (place / "pictures").mkdir()
    for i in range(30):
        pixels = np.full((8, 8, 3), 200 + i, np.uint8)
        Image.fromarray(pixels).save(place / "pictures" / f"{i}.png")
    return place


@pytest.fixture(scope="module")
def url(place: Path, serve_app: Callable[[], str]) -> Iterator[str]:
    from ddpm_demo.ui.server import runtime

    patch = pytest.MonkeyPatch()
    patch.setenv("DDPM_DEMO_MODELS", str(place / "zoo"))
    fresh = runtime.Models(lambda name: load_checkpoint(name), 10**9)
    patch.setattr(runtime, "model", fresh)
    yield serve_app()
    patch.undo()


def number(tab: Any, elem_id: str, value: float) -> None:
    box = tab.locator(f"#{elem_id} input")
    box.fill(str(value))
    box.press("Tab")


def opened(page: Any, url: str, place: Path) -> Any:
    """The tab, on the made-up pictures, with a rate that shows something soon."""
    page.goto(url)
    page.get_by_role("tab", name="Fine-tune").click()
    page.locator("#tuner [data-part=title]", has_text=RECORDED).wait_for()
    page.locator("#tune-more").get_by_role("button", name="More settings").click()
    page.locator("#tune-data textarea, #tune-data input").fill(f"folder:{place / 'pictures'}")
    box = page.locator("#tune-class input")
    box.fill("all of the data")
    box.press("Enter")
    number(page, "tune-lr", 0.005)
    number(page, "tune-length", STEPS)
    number(page, "tune-batch", 8)
    return page


@pytest.fixture
def tab(page: Any, url: str, place: Path) -> Any:
    return opened(page, url, place)


@pytest.fixture
def other(browser: Any, url: str, place: Path) -> Iterator[Any]:
    """Another visitor, in the same tab."""
    page = browser.new_page()
    yield opened(page, url, place)
    page.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Runs do not go beyond their sixth step before this is set; the estimate has three."""
    gate, advance = threading.Event(), Trainer.advance

    def hold(self: Trainer, lr: float) -> Any:
        assert self.step < 6 or gate.wait(120)
        return advance(self, lr)

    monkeypatch.setattr(Trainer, "advance", hold)
    yield gate
    gate.set()


def said(tab: Any, text: str | re.Pattern[str]) -> None:
    tab.locator("#tune-line").get_by_text(text).first.wait_for()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def downloaded(tab: Any, to: Path) -> Path:
    with tab.expect_download() as download:
        tab.locator("#tune-download").click()
    to.write_bytes(download.value.path().read_bytes())
    return to


def test_a_recorded_run_is_there_at_once(page: Any, url: str) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Fine-tune").click()
    page.locator("#tuner [data-part=title]", has_text=RECORDED).wait_for()
    page.wait_for_function(f"() => {FRAMES} === 3 && {STEP} === 20")
    assert page.locator("#tune-curve polyline").count() == 1
    last = page.evaluate(NOW)
    for button in ("tune-on", "tune-meter"):  # nothing to continue or to compare
        assert page.locator(f"#{button}").is_disabled()
        assert page.locator(f"#{button}").get_attribute("title").endswith("Press Start first.")
    page.locator("#tuner .ddpm-player").press("Home")
    page.wait_for_function(f"last => {STEP} === 0 && ({NOW})() !== last", arg=last)
    page.get_by_role("tab", name="Generate").click()
    page.get_by_role("tab", name="Fine-tune").click()
    page.get_by_role("button", name="plain-red").click()
    page.wait_for_function(f"last => {STEP} === 20 && ({NOW})() === last", arg=last)


def test_a_copy_is_tuned_filmed_and_samples(
    tab: Any, other: Any, place: Path, tmp_path: Path
) -> None:
    before = digest(place / "zoo" / "plain")
    tab.locator("#tune").click()
    said(tab, "“plain-all-20 (yours)” is in the model list of Generate.")
    tab.locator("#tuner").get_by_text("plain, fine-tuned on folder:").first.wait_for()
    tab.wait_for_function(f"() => {FRAMES} === 8 && {STEP} === 20")
    assert tab.locator("#tune-curve polyline").count() == 1
    points = tab.locator("#tune-curve polyline").get_attribute("points").split()
    heights = [float(p.split(",")[1]) for p in points]
    assert sum(heights[-5:]) > sum(heights[:5])  # downwards on the screen: the loss falls
    assert digest(place / "zoo" / "plain") == before

    with tab.expect_download() as download:
        tab.locator("#tuner [data-save=gif]").click()
    with Image.open(download.value.path()) as film:
        assert film.n_frames == 8
        assert film.info["duration"] == 500
        words = film.height - film.width // 2  # lines above the squares: when it is, what is seen
        sides = [np.split(np.asarray(film.convert("RGB"))[words:], 2, axis=1)]
        film.seek(7)
        sides += [np.split(np.asarray(film.convert("RGB"))[words:], 2, axis=1)]
    assert np.array_equal(sides[0][0], sides[1][0])  # before, in the first frame and in the last
    assert not np.array_equal(sides[0][1], sides[1][1])

    saved = downloaded(tab, tmp_path / "plain-all-20.safetensors")
    assert load_checkpoint(saved).info["base"] == "plain"

    tab.get_by_role("tab", name="Generate").click()
    tab.wait_for_function("() => document.querySelector('#model input').value.includes('yours')")
    assert tab.locator("#model input").input_value() == "plain-all-20 (yours)"
    tab.locator("#go").click()
    tab.locator("#player").get_by_text("step 7 / 7").first.wait_for()
    for page, names in ((tab, ["plain", "plain-red", "plain-all-20 (yours)"]), (other, None)):
        page.get_by_role("tab", name="Generate").click()
        page.locator("#model input").click()
        found = page.locator("[role=listbox] [role=option]").all_inner_texts()
        assert [name.strip("✓ \n") for name in found] == (names or ["plain", "plain-red"])


def test_stopped_and_continued_is_as_unbroken(
    tab: Any,
    held: threading.Event,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ddpm_demo.ui.components.controls import find
    from ddpm_demo.ui.finetune import handlers as tuning
    from ddpm_demo.ui.finetune.asked import ALL
    from ddpm_demo.ui.server import disk

    # In bfloat16, another number of cores changes more.
    for module in ("training.train", "training.finetune"):
        monkeypatch.setattr(f"ddpm_demo.{module}.bf16_pays", lambda _device: False)
    tab.locator("#tune").click()
    said(tab, TRAINS)
    assert not tab.locator("#tune").is_visible()  # nor a second one while the first runs
    assert not tab.locator("#tune-on").is_visible()
    tab.locator("#tune-stop").click()
    until(lambda: bool(list(disk.folder().glob(f"*/{tuning.STOP}"))))
    held.set()
    said(tab, "(yours)” is in the model list of Generate.")
    tab.locator("#tuner [data-part=status]", has_text="Stopped at step").wait_for()
    parts = downloaded(tab, tmp_path / "parts.safetensors")
    tab.locator("#tune-on").click()
    said(tab, "“plain-all-20 (yours)”")
    tab.wait_for_function(f"() => {STEP} === 20")
    continued = downloaded(tab, tmp_path / "continued.safetensors")

    asked = (f"folder:{place / 'pictures'}", ALL, STEPS, "steps", 8, 0.005, 8, "auto")
    plan = tuning.plan(True, find("plain", {}), tuning.Asked(*asked))
    with pytest.raises(StopIteration) as end:
        next(plan)
    p = end.value.value
    list(finetune(*p.load(), p.config, tmp_path / "whole"))
    whole = load_checkpoint(tmp_path / "whole").model.half().state_dict()
    for file, same in ((continued, True), (parts, False)):
        there, _ = load_tensors(file)
        worst = max(float((there[name] - whole[name]).abs().max()) for name in whole)
        # Not bit for bit: the app's threads may run their operators on another number of cores.
        assert (worst < 2e-3) == same, worst


def test_one_waits_for_another_visitors_and_can_be_taken_back(
    tab: Any, other: Any, held: threading.Event
) -> None:
    tab.locator("#tune").click()
    said(tab, TRAINS)
    other.locator("#tune").click()
    said(other, "Waiting for its turn…")
    assert not other.locator("#tune").is_visible()
    other.locator("#tune-stop").click()
    said(other, "Cancelled before it started.")
    number(other, "tune-length", 3)
    other.locator("#tune").click()
    said(other, "Waiting for its turn…")
    held.set()
    said(tab, "“plain-all-20 (yours)”")
    said(other, "“plain-all-3 (yours)”")


def test_closing_the_tab_stops_the_work(other: Any) -> None:
    from ddpm_demo.ui.finetune import handlers as tuning

    number(other, "tune-length", 100_000)
    other.locator("#tune").click()
    said(other, TRAINS)
    assert len(tuning.turns._runs) == 1
    other.close()
    until(lambda: not tuning.turns._runs)


@pytest.mark.parametrize(
    ("box", "value", "message"),
    [
        ("tune-length", 0, "Steps must be"),
        ("tune-batch", 64, "batch_size must be a whole number from 1 to 30 (the number"),
    ],
)
def test_bad_values_get_one_sentence(tab: Any, box: str, value: int, message: str) -> None:
    number(tab, box, value)
    tab.locator("#tune").click()
    tab.locator(".toast-body").get_by_text(message).first.wait_for()
    said(tab, message)
    tab.get_by_role("tab", name="Generate").click()  # the other tabs keep working
    tab.locator("#go").click()
    tab.locator("#player").get_by_text("step 7 / 7").first.wait_for()


def test_an_uploaded_file_is_checked(tab: Any, place: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    torch.save({"a": torch.zeros(2)}, bad)
    picker = tab.locator("input[type=file][accept='.safetensors']")
    picker.set_input_files(str(bad))
    tab.get_by_text("bad.safetensors is not a whole safetensors file").first.wait_for()
    good = tmp_path / "good.safetensors"
    good.write_bytes((place / "zoo" / "plain" / "model.safetensors").read_bytes())
    picker.set_input_files(str(good))
    said(tab, "“good (yours)” is in the model list of Generate.")
    tab.locator("#tune-base input").click()  # and can be a base
    tab.get_by_role("option", name="good (yours)").wait_for()
