"""The tab "Measure" in a real browser, on tiny models and a classifier of made-up pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ddpm_demo import data as d
from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.evaluation import references
from ddpm_demo.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    save_classifier,
)
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet

pytestmark = pytest.mark.e2e
KINDS = ("dark", "bright")
FRAMES = "+(document.querySelector('#measured [data-frames]')?.dataset.frames || 0)"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: Any) -> Iterator[Path]:
    """ "mnist", for whose data there is a judge, and "own", of a folder of pictures."""
    place = Path(tmp_path_factory.mktemp("measure"))
    patch = pytest.MonkeyPatch()
    patch.setenv("DDPM_DEMO_MODELS", str(place))
    torch.manual_seed(0)
    config = ModelConfig(size=8, channels=1, width=8, multipliers=(1, 2), attention=(4,))
    (place / "pictures").mkdir()
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 1, 8, 8), generator=g).byte()
    for i, picture in enumerate(pixels[:4, 0].numpy()):
        Image.fromarray(picture).save(place / "pictures" / f"{i}.png")
    for name, dataset in (("mnist", "mnist"), ("own", f"folder:{place / 'pictures'}")):
        info = {"dataset": dataset, "sample": {"steps": 7}}
        save_checkpoint(place / name, Checkpoint(UNet(config), DiffusionConfig(T=1000), info))
    path = place / "classifiers" / "mnist.safetensors"
    shape: dict[str, Any] = {"size": 8, "channels": 1, "widths": (8, 8, 8, 8), "dim": 5}
    save_classifier(path, Classifier(ClassifierConfig(KINDS, **shape), {"dataset": "mnist"}))
    seen = d.Images(pixels, torch.arange(60) // 30, KINDS)
    references.write(load_classifier(path), seen, "test", path.parent)
    yield place
    patch.undo()


@pytest.fixture(scope="module")
def url(zoo: Path, serve_app: Callable[[], str]) -> Iterator[str]:
    from ddpm_demo.ui.server import runtime

    patch = pytest.MonkeyPatch()
    fresh = runtime.Models(load_checkpoint, 10**9)
    patch.setattr(runtime, "model", fresh)
    patch.setattr(runtime, "_seconds", {})
    yield serve_app()
    patch.undo()


@pytest.fixture
def tab(page: Any, url: str) -> Any:
    page.goto(url)
    page.get_by_role("tab", name="Measure").click()
    page.locator("#measure-pace").get_by_text("on this computer").first.wait_for()
    return page


def number(tab: Any, elem_id: str, value: int) -> None:
    box = tab.locator(f"#{elem_id} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def test_samples_are_counted_judged_and_plotted(tab: Any) -> None:
    assert tab.locator("#measure-n input").input_value() == "128"
    number(tab, "measure-n", 40)
    tab.locator("#measure").click()
    tab.locator("#measure-line").get_by_text("Done: mnist.").first.wait_for()
    tab.wait_for_function(f"() => {FRAMES} === 3")
    tab.locator("#measured").get_by_text("picture 40 / 40").first.wait_for()
    result = tab.locator("#measure-result")
    for text in (
        "Distance from real digits",
        "with 40 samples",
        "60 test pictures",
        "It is not FID",
    ):
        result.get_by_text(text).first.wait_for()
    assert float(result.locator("p b").first.inner_text()) > 0
    bars = result.locator("svg rect.bar")
    shares = [float(bars.nth(i).get_attribute("width")) for i in range(bars.count())]
    assert len(shares) == 4
    assert max(shares) > 150


def test_stop_keeps_nothing_half_and_the_next_one_runs(tab: Any) -> None:
    number(tab, "measure-n", 2000)
    number(tab, "measure-steps", 100)
    tab.locator("#measure").click()
    tab.locator("#measure-line progress").wait_for()
    tab.wait_for_function(f"() => {FRAMES} >= 1")
    tab.locator("#measure-stop").click()
    tab.locator("#measure-line").get_by_text("Stopped. Nothing was kept.").first.wait_for()
    assert tab.locator("#measure-result table").count() == 0
    number(tab, "measure-n", 10)
    number(tab, "measure-steps", 2)
    tab.locator("#measure").click()
    tab.locator("#measure-line").get_by_text("Done: mnist.").first.wait_for()


def test_too_few_are_refused_with_the_reason(tab: Any) -> None:
    number(tab, "measure-n", 9)
    said = "Number of pictures must be 10 or more, not 9: twice the 5 features"
    tab.locator("#measure-pace").get_by_text(said).wait_for()
    tab.locator("#measure").click()
    tab.locator(".toast-body").get_by_text(said).wait_for()


def test_a_model_without_a_judge_has_bits_per_dim(tab: Any) -> None:
    tab.locator("#measure-model input").click()
    tab.get_by_role("option", name="own").click()
    tab.locator("#measure-why").get_by_text("No distance: data of the model").first.wait_for()
    boxes = tab.locator("#measure-metrics input[type=checkbox]")
    assert boxes.count() == 1
    tab.locator("#measure").click()
    tab.locator("#measure-line").get_by_text("Done: own.").first.wait_for()
    result = tab.locator("#measure-result")
    result.get_by_text("on 4 test pictures with 50 terms").first.wait_for()
    assert result.locator("svg polyline").count() == 2
