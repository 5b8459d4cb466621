"""The tab "Experiments" in a real browser, on tiny models: every card, one after the other."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.experiments import between, guiding, plane, race
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import models_folder
from ddpm_demo.nn.unet import UNet

pytestmark = pytest.mark.e2e
DONE = "Done."


@pytest.fixture(scope="module")
def url(tmp_path_factory: Any, serve_app: Callable[[], str]) -> Iterator[str]:
    from ddpm_demo.ui.server import runtime

    place = Path(tmp_path_factory.mktemp("experiments"))
    torch.manual_seed(0)
    shape = {"size": 28, "channels": 1, "width": 8, "multipliers": (1, 2), "attention": (7,)}
    process = DiffusionConfig(T=1000, predict="v")
    info = {"dataset": "mnist", "sample": {"steps": 5}, "classes": [str(n) for n in range(10)]}
    net = UNet(ModelConfig(**shape, num_classes=10))
    save_checkpoint(place / "mnist", Checkpoint(net, process, info))
    row = {"images": 100, "train": 0.5, "held_out": 0.4, "loss_by_t": [0.5] * 10, "seconds": 60}
    (place / "mnist" / "log.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copytree(models_folder() / "classifiers", place / "classifiers")
    patch = pytest.MonkeyPatch()
    patch.setenv("DDPM_DEMO_MODELS", str(place))
    patch.setattr(runtime, "model", runtime.Models(load_checkpoint, 10**9))
    patch.setattr(runtime, "_seconds", {})
    for name, value in (("TRAIN", 100), ("STEPS", 5), ("SEEN", 60)):
        patch.setattr(plane, name, value)
    for module, name, value in ((race, "LONG", 8), (guiding, "STEPS", 5), (between, "STEPS", 4)):
        patch.setattr(module, name, value)
    patch.setattr(between, "BACK", (2, 4))
    yield serve_app()
    patch.undo()


def done(page: Any) -> None:
    page.locator("#experiment-line").get_by_text(DONE).first.wait_for()


def test_each_card_runs_and_is_saved(page: Any, url: str) -> None:
    page.goto(f"{url}?tab=experiments&experiment=break&bug=no-root&seed=3&run=1")
    result = page.locator("#experiment-result")
    done(page)
    result.get_by_text("mnist from seed 3").wait_for()
    result.locator("img").nth(1).wait_for(state="attached")
    assert result.locator("img").count() == 2
    assert "ab_s, 1 - ab_s" in result.locator("pre .wrong").inner_text()
    with page.expect_download() as saved:
        result.get_by_text("Save as one picture").click()
    with Image.open(saved.value.path()) as picture:
        assert picture.width == 1600
    with page.expect_download() as saved:
        result.get_by_text("Save the numbers").click()
    assert json.loads(Path(saved.value.path()).read_text())["settings"]["bug"] == "no-root"
    for card, shown in (("plane", "svg"), ("noises", "svg"), ("copying", "img"), ("guess", "img")):
        page.locator(f"#experiment-cards input[value={card}]").check()
        result.get_by_text("Press Run.").wait_for()
        page.locator("#experiment-pace").get_by_text("on this computer").wait_for()
        page.wait_for_url(re.compile(f"experiment={card}"), wait_until="commit")
        if card == "plane":  # points of one's own, drawn
            field = page.locator(".cloud canvas")
            for x, y in ((30, 30), (120, 50), (80, 120)):
                field.click(position={"x": x, "y": y})
            page.wait_for_url(re.compile("points="), wait_until="commit")
            points = page.get_by_label("Points of yours").input_value()
            assert len(points.split(";")) == 3
        page.locator("#experiment-run").click()
        done(page)
        result.locator(shown).nth(2).wait_for(state="attached")
    answer = result.get_by_text("right", exact=False)
    assert not answer.first.is_visible()


def test_a_link_opens_each_of_the_other_cards(page: Any, url: str) -> None:
    cards = {"race": "calls=1,2", "decide": "steps=5", "guidance": "w=2", "between": "weight=1"}
    for card, words in (cards | {"recorded": "model=mnist"}).items():
        page.goto(f"{url}?tab=experiments&experiment={card}&{words}&run=1")
        done(page)
        shown = "svg" if card == "recorded" else "img"
        page.locator(f"#experiment-result [data-experiment={card}] {shown}").first.wait_for()


def test_a_step_of_generate_opens_its_guidance(page: Any, url: str) -> None:
    page.goto(f"{url}?model=mnist&class=3&guidance=2&seed=5&steps=2&n=1&run=1")
    page.wait_for_selector("#player [data-run=over]", state="attached")
    with page.expect_popup() as opened:
        page.locator("#player [data-part=guidance]").click()
    card = opened.value
    card.locator("#experiment-result [data-experiment=guidance] img").first.wait_for()
    assert card.locator("#experiment-guidance-w input").first.input_value() == "2"
    assert card.locator("#experiment-guidance-label input").first.input_value() == "3"
    card.close()


def test_it_learns_and_the_model_is_kept(page: Any, url: str) -> None:
    page.goto(f"{url}?tab=experiments&experiment=learn&seconds=3&pictures=200&run=1")
    result = page.locator("#experiment-result")
    done(page)
    result.get_by_text("16 samples from the same noise").wait_for()
    result.get_by_text("Loss by t").wait_for()
    page.get_by_label("Go on").check()
    page.locator("#experiment-run").click()
    page.wait_for_function(  # what the run before said is gone
        f"() => !document.querySelector('#experiment-line').textContent.includes('{DONE}')"
    )
    done(page)
    page.locator("#experiment-learn-keep").click()
    page.locator("#experiment-line").get_by_text(
        "is in the model list of Generate"
    ).first.wait_for()


def test_stop_and_bad_values(page: Any, url: str) -> None:
    page.goto(f"{url}?tab=experiments&experiment=race&calls=0")
    page.locator("#link-line").get_by_text("whole numbers from 1 to 200, not (0,).").wait_for()
    calls = page.locator("#experiment-race-calls :is(input, textarea)").first
    calls.fill("many")
    page.locator("#experiment-pace").get_by_text("must be whole numbers").wait_for()
    page.locator("#experiment-run").click()
    page.locator(".toast-body").get_by_text("must be whole numbers").wait_for()
    calls.fill("5, 200")
    page.locator("#experiment-run").click()
    page.locator("#experiment-result img").first.wait_for()
    page.locator("#experiment-stop").click()
    page.locator("#experiment-line").get_by_text("What has come so far stays.").first.wait_for()
    page.locator("#experiment-run").wait_for()
    assert page.locator("#experiment-result img").count() >= 1
