"""Published models in the real app, without a network: what is cached, what isn't, and folders."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from folders import TINY
from huggingface_hub import errors

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline's folder."""
    folder = tmp_path_factory.mktemp("hub") / "published"
    DDPMPipeline(UNet2DModel(**TINY), DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(published: Path, serve_app: Callable[[], str]) -> Iterator[str]:
    """The app with one shipped model, and with the first of the listed repos in its cache."""
    from ddpm_demo.ui.server import runtime

    def snapshot_download(repo_id: str, **_options: Any) -> str:
        if repo_id != "google/ddpm-cifar10-32":
            raise errors.LocalEntryNotFoundError("There is no snapshot.")
        return str(published)

    def offline() -> Any:
        raise errors.OfflineModeIsEnabled("Offline mode is on.")

    config = ModelConfig(size=8, channels=1, width=8, multipliers=(1, 2), attention=(4,))
    save_checkpoint(published.parent / "mnist", Checkpoint(UNet(config), DiffusionConfig()))
    patch, fresh = pytest.MonkeyPatch(), runtime.Models(load_checkpoint, 10**9)
    patch.setenv("DDPM_DEMO_MODELS", str(published.parent))
    patch.setattr(runtime, "model", fresh)
    patch.setattr(runtime, "_seconds", {"google/ddpm-cifar10-32": {1: 0.02, 4: 0.05, 16: 0.1}})
    patch.setattr(hub, "snapshot_download", snapshot_download)
    patch.setattr(hub, "HfApi", offline)
    yield serve_app()
    patch.undo()


@pytest.fixture
def entry(page: Any, url: str) -> Any:
    page.goto(url)
    page.locator("#hub button").first.click()
    page.locator("#hub-line").get_by_text("google/ddpm-cifar10-32 is on this disk").first.wait_for()
    return page


def choose(page: Any, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=option).click()


def value(page: Any, selector: str, wanted: str) -> None:
    same = "([selector, wanted]) => document.querySelector(selector).value === wanted"
    page.wait_for_function(same, arg=[selector, wanted])


def test_a_cached_model_is_chosen_and_sampled_in_the_time_that_is_picked(entry: Any) -> None:
    entry.locator("#hub-get").click()
    entry.locator("#hub-line").get_by_text("google/ddpm-cifar10-32 is chosen.").first.wait_for()
    value(entry, "#model input", "google/ddpm-cifar10-32")
    entry.locator("#about-model").get_by_text("8 × 8 colour").first.wait_for()
    pace = entry.locator("#pace")
    pace.get_by_text("About 5.0 s for 16 pictures in 50 steps.").first.wait_for()
    choose(entry, "time", "about 2 s")
    pace.get_by_text("About 2.0 s for 16 pictures in 20 steps.").first.wait_for()
    value(entry, "#sampler input", "DDIM")  # its own, as nothing was measured for it
    entry.locator("#go").click()
    entry.locator("#player").get_by_text("step 20 / 20").first.wait_for()
    box = entry.locator("#steps input[type=number]")
    box.fill("7")  # by hand again
    box.press("Tab")
    value(entry, "#time input", "none")
    pace.get_by_text("About 0.7 s for 16 pictures in 7 steps.").first.wait_for()


def test_what_is_not_cached_says_so_and_a_folder_still_loads(entry: Any, published: Path) -> None:
    said = "google/ddpm-church-256 is not on this disk, and HF_HUB_OFFLINE forbids"
    choose(entry, "hub-repo", "google/ddpm-church-256")
    entry.locator("#hub-line").get_by_text(said).wait_for()
    entry.locator("#hub-get").click()
    entry.locator(".toast-body").get_by_text(said).wait_for()
    box = entry.locator("#hub-repo input")
    box.fill(str(published))
    box.press("Enter")
    entry.locator("#hub-line").get_by_text("is on this disk.").first.wait_for()
    entry.locator("#hub-get").click()
    value(entry, "#model input", "published (this disk)")


def test_no_label_shines_through_the_buttons_of_a_phone(page: Any, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    page.locator("#go").wait_for()
    hidden = """() => {
        const bar = document.querySelector('#act').getBoundingClientRect();
        const label = document.querySelector('#time [data-testid=block-info]');
        const move = label.getBoundingClientRect().top - bar.top - bar.height / 2;
        document.scrollingElement.scrollBy(0, move);
        const {left, top, height} = label.getBoundingClientRect();
        return document.elementFromPoint(left + 2, top + height / 2).closest('#act') !== null;
    }"""
    assert page.evaluate(hidden)
