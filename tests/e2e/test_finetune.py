"""The tab "Fine-tune" in a real browser, on a tiny model and made-up pictures."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.unet import UNet

pytestmark = pytest.mark.e2e
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
    (place / "pictures").mkdir()
    for i in range(30):
        pixels = np.full((8, 8, 3), 200 + i, np.uint8)
        Image.fromarray(pixels).save(place / "pictures" / f"{i}.png")
    return place


@pytest.fixture(scope="module")
def url(place: Path, serve: Callable[..., str]) -> Iterator[str]:
    from ddpm_demo import checkpoint
    from ddpm_demo.ui import app, runtime

    patch = pytest.MonkeyPatch()
    patch.setattr(checkpoint, "ZOO", place / "zoo")
    fresh = runtime.Models(lambda name: load_checkpoint(name), 10**9)
    patch.setattr("ddpm_demo.ui.generate.model", fresh)
    patch.setattr(runtime, "model", fresh)
    fixed = ("ssr_mode", "run_history")
    yield serve(app.build_app(), **{k: v for k, v in app.LAUNCH.items() if k not in fixed})
    patch.undo()


def number(tab: Any, elem_id: str, value: float) -> None:
    box = tab.locator(f"#{elem_id} input")
    box.fill(str(value))
    box.press("Tab")


@pytest.fixture
def tab(page: Any, url: str, place: Path) -> Any:
    page.goto(url)
    page.get_by_role("tab", name="Fine-tune").click()
    page.get_by_role("button", name="More settings").last.click()
    page.locator("#tune-data textarea, #tune-data input").fill(f"folder:{place / 'pictures'}")
    box = page.locator("#tune-class input")
    box.fill("all of the data")
    box.press("Enter")
    number(page, "tune-lr", 0.005)
    return page


def said(tab: Any, text: str) -> None:
    tab.locator("#tune-line").get_by_text(text).wait_for(timeout=60_000)


def test_a_copy_is_tuned_and_samples(tab: Any, place: Path, tmp_path: Path) -> None:
    before = digest(place / "zoo" / "plain")
    number(tab, "tune-steps", 40)
    number(tab, "tune-batch", 8)
    tab.locator("#tune").click()
    said(tab, "“plain-all-40 (yours)” is in the model list of Generate.")
    tab.wait_for_function(f"() => {FRAMES} >= 3")
    assert tab.locator("#tune-curve polyline").count() == 1
    points = tab.locator("#tune-curve polyline").get_attribute("points").split()
    heights = [float(p.split(",")[1]) for p in points]
    assert sum(heights[-5:]) > sum(heights[:5])  # downwards on the screen: the loss falls
    assert digest(place / "zoo" / "plain") == before

    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download weights").click()
    saved = tmp_path / "plain-all-40.safetensors"
    saved.write_bytes(download.value.path().read_bytes())
    assert load_checkpoint(saved).info["base"] == "plain"

    tab.get_by_role("tab", name="Generate").click()
    assert tab.locator("#model input").input_value() == "plain-all-40 (yours)"
    tab.locator("#go").click()
    tab.locator("#player").get_by_text("step 7 / 7").wait_for(timeout=60_000)


def test_stop_keeps_and_continue_goes_on(tab: Any) -> None:
    number(tab, "tune-steps", 300)
    number(tab, "tune-batch", 8)
    tab.locator("#tune").click()
    said(tab, "Step ")
    tab.locator("#tune").click()  # a second one while the first runs
    tab.get_by_text("Your fine-tuning is still running").first.wait_for()
    tab.locator("#tune-stop").click()
    said(tab, "(yours)” is in the model list of Generate.")
    tab.locator("#tuner").get_by_text("Stopped at step").first.wait_for()
    tab.locator("#tune-on").click()
    said(tab, "“plain-all-300 (yours)”")


@pytest.mark.parametrize(
    ("box", "value", "message"),
    [
        ("tune-steps", 0, "steps is 0"),
        ("tune-batch", 64, "batch_size is 64; allowed is a whole number from 1 to 30"),
    ],
)
def test_bad_values_get_one_sentence(tab: Any, box: str, value: int, message: str) -> None:
    number(tab, box, value)
    tab.locator("#tune").click()
    tab.get_by_text(message).first.wait_for()


def test_an_uploaded_file_is_checked(tab: Any, place: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    torch.save({"a": torch.zeros(2)}, bad)
    picker = tab.locator("input[type=file][accept='.safetensors']")
    picker.set_input_files(str(bad))
    tab.get_by_text("bad.safetensors is not a whole safetensors file").first.wait_for()
    good = tmp_path / "good.safetensors"
    good.write_bytes((place / "zoo" / "plain" / "model.safetensors").read_bytes())
    tab.get_by_role("button", name="Clear").or_(tab.get_by_label("Remove")).first.click()
    picker.set_input_files(str(good))
    said(tab, "“good” is in the model list of Generate.")
