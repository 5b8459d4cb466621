"""The step beside the player, in a real browser: the numbers that it shows are the sampler's."""

import re

import gradio as gr
import pytest

from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.updates import updates
from ddpm_demo.ui.components import player

pytestmark = pytest.mark.e2e

CONFIG = SampleConfig(sampler="ddpm", steps=5, n=4, labels=None)
ROOT = "#player .ddpm-player"


@pytest.fixture
def said(page, serve, tiny):
    """The updates of a run that the page has shown to its end."""
    checkpoint = tiny()
    said = updates(checkpoint, CONFIG)

    def run():
        steps = generate(checkpoint, CONFIG)
        yield from player.stream(steps, panels=player.STEP_PANELS, updates=said)

    with gr.Blocks() as demo:
        go = gr.Button("Generate", elem_id="go")
        shown = player.Player(elem_id="player", step=True)
        go.click(run, None, shown, **player.PROGRESS)
    page.goto(serve(demo))
    page.locator("#go").click()
    page.wait_for_selector("#player [data-run=over]", state="attached")
    return said


def test_a_step_says_what_it_computes(page, said):
    page.locator(f"{ROOT} [data-part=slider]").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#player [data-step='1']", state="attached")

    maths = page.locator(f"{ROOT} [data-part=maths] math > mrow")
    numbers = [float(n) for n in maths.locator("> mn").all_text_contents()]
    assert numbers == pytest.approx([c for _, c in said["lines"][1]], abs=5e-4)
    shares = page.locator(f"{ROOT} [data-part=snr]").inner_text()
    ab = said["alpha_bar"][1]
    assert [float(n) for n in re.findall(r"[\d.]+", shares)] == pytest.approx(
        [ab, ab / (1 - ab)], abs=2e-3
    )
    assert page.locator(f"{ROOT} [data-part=curve] circle").count() == 6

    page.get_by_role("button", name="code").click()
    page.wait_for_selector(f"{ROOT} dialog[open]")
    assert "def ddpm(" in page.locator(f"{ROOT} dialog pre").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(f"{ROOT} dialog[open]").count() == 0


@pytest.mark.usefixtures("said")
def test_panes_are_chosen_by_the_keyboard(page):
    page.locator(f"{ROOT} [data-part=first]").click()
    figures = page.get_by_role("figure")
    assert figures.count() == 2
    for name in ("Predicted noise ε̂", "Fresh noise σ z"):
        page.get_by_role("checkbox", name=name).focus()
        page.keyboard.press("Space")
    assert figures.count() == 4
    drawn = "c => c.getContext('2d').getImageData(0, 0, 1, 1).data[3]"
    z = page.locator(f"{ROOT} figure[data-pane=z] canvas")
    page.wait_for_function(f"c => ({drawn})(c) === 255", arg=z.element_handle())
    page.locator(f"{ROOT} [data-part=last]").click()
    page.wait_for_function(f"c => ({drawn})(c) === 0", arg=z.element_handle())  # none at the end
