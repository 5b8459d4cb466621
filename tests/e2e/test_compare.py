"""A run that is kept beside the next: aligned by t, what differs, and how far apart they are."""

from typing import Any

import gradio as gr
import numpy as np
import pytest

from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.ui.components import player

pytestmark = pytest.mark.e2e

ROOT = "#player .ddpm-player"
RUNS = [SampleConfig(steps=k, n=4, labels=None, sampler="ddim") for k in (5, 10)]


def test_a_kept_run_stands_beside_the_next(page: Any, serve: Any, tiny: Any) -> None:
    checkpoint = tiny()

    def run(k: int) -> Any:
        said = RunSpec("tiny", RUNS[k]).to_metadata()
        steps = generate(checkpoint, RUNS[k])
        yield from player.stream(steps, panels=player.STEP_PANELS, meta=said)

    with gr.Blocks() as demo:
        shown = player.Player(elem_id="player", step=True, link="generate")
        for k in range(2):
            which = gr.Number(k, visible=False, precision=0)
            gr.Button(f"Run {k}").click(run, which, shown, **player.progress(shown))
    page.goto(serve(demo))
    page.get_by_role("button", name="Run 0").click()
    page.locator("#player [data-run=over]").wait_for(state="attached")
    page.get_by_role("button", name="Keep", exact=True).click()
    kept = page.get_by_role("list", name="Kept runs").get_by_role("listitem")
    assert "the same settings" in kept.inner_text()
    page.get_by_role("button", name="Run 1").click()
    page.locator("#player [data-run=over][data-frames='11']").wait_for(state="attached")

    assert kept.locator(".ddpm-differ").inner_text().strip() == "steps 5 (now 10)"
    assert kept.locator(".ddpm-differ b").all_inner_texts() == ["5"]
    ends = [to_uint8(list(generate(checkpoint, config))[-1].x_t).astype(float) for config in RUNS]
    apart = np.sqrt(np.mean((ends[0] - ends[1]) ** 2)) / 127.5
    kept.get_by_text(f"x at t = 0: {apart:.3f} apart").wait_for()

    page.locator(f"{ROOT} [data-part=first]").click()
    kept.get_by_text("x at t = 20: 0.000 apart").wait_for()  # the same noise
    page.locator(f"{ROOT} [data-part=next]").click()
    kept.get_by_text("at t = 16").wait_for()  # where the run with fewer steps comes next
    page.reload()
    page.locator(f"{ROOT} [data-part=status]", has_text="Your last run is still here").wait_for()
    kept.get_by_text(f"x at t = 0: {apart:.3f} apart").wait_for()
    assert kept.locator(".ddpm-differ").inner_text().strip() == "steps 5 (now 10)"
    page.get_by_role("button", name="Let go of kept run A").click()
    assert page.locator(f"{ROOT} .ddpm-lane").count() == 0
