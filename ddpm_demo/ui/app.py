"""The page: its tabs, its look, and how it is served."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere

import gradio as gr
import torch

from ddpm_demo.devices import keep_memory
from ddpm_demo.ui.finetune import build_finetune_tab
from ddpm_demo.ui.forward import build_forward_tab
from ddpm_demo.ui.generate import build_generate_tab, warm_up
from ddpm_demo.ui.measure import build_measure_tab

TITLE = "DDPM, live"
INTRO = """# DDPM, live
A real diffusion model at work: pictures come out of noise, and a picture dissolves into it
(Ho, Jain & Abbeel 2020)."""

# The app serves its fonts itself, so the page works with no network at all. Of the default font's
# weights, 600 lacks most letters.
FONT = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700))
THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=[FONT, "ui-sans-serif", "system-ui", "sans-serif"],
)
CSS = """
.gradio-container { max-width: 1440px !important; }
#tune-curve svg { max-height: 260px; }
#measured .ddpm-box { max-height: 42vh; }
#measure-why, #measure-line { font-size: .85rem; overflow-wrap: anywhere; }
#measure-line progress { display: block; width: 100%; margin-top: 4px;
  accent-color: var(--color-accent); }
#measure-result :is(table, tbody, tr, th, td) { border: 0; border-collapse: collapse;
  text-align: left; }
#measure-result :is(th, td) { padding: 4px 16px 4px 0;
  border-bottom: 1px solid var(--border-color-primary); }
#measure-result p { font-size: .85rem; max-width: 70ch; margin: 8px 0; }
#measure-result figure { display: inline-block; width: min(100%, 400px); overflow-x: auto;
  margin: 8px 12px 8px 0; font-weight: 700; vertical-align: top; }
#measure-result svg { display: block; width: 100%; min-width: 400px; font-weight: 400; }
#pace, #measure-pace { flex: 1 1 100%; min-height: 1.3em; font-size: .85rem; line-height: 1.3;
  color: var(--body-text-color-subdued); text-align: center; }
#act, #measure-act { flex-wrap: wrap; row-gap: 6px; }
#hub-line { font-size: .85rem; overflow-wrap: anywhere; }
#hub-line progress { display: block; width: 100%; margin-top: 4px;
  accent-color: var(--color-accent); }
#about-model { font-size: .85rem; color: var(--body-text-color-subdued); }
@media (max-width: 640px) {
  .stage-and-controls { margin-bottom: 60px; }
  /* Below the pictures these would be out of reach: keep them under the thumb, and above Gradio's
     labels, whose z-index is 40. */
  #act, #measure-act { position: fixed; inset: auto 0 0 0; z-index: 45; padding: 8px 16px;
    background: var(--body-background-fill); border-top: 1px solid var(--border-color-primary); }
}
"""

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    "max_file_size": "20mb",  # larger uploads are refused before any of our code
    "show_error": False,
    "enable_monitoring": False,
    "run_history": False,  # or each run's last frame stays in the visitor's browser
    "state_session_capacity": 200,
    "ssr_mode": False,
    "footer_links": ["gradio", "settings"],
}


def build_app(any_repo: bool = "SPACE_ID" not in os.environ) -> gr.Blocks:
    """The app, ready for `launch(**LAUNCH)`.

    Args:
        any_repo: visitors may load any repo of the Hub and any folder of this disk.
    """
    with gr.Blocks(title=TITLE, delete_cache=(600, 3600)) as demo:
        gr.Markdown(INTRO)
        with gr.Tab("Generate", id="generate"):
            choice = build_generate_tab(any_repo)
        with gr.Tab("Forward noising", id="forward"):
            build_forward_tab()
        if choice:
            with gr.Tab("Fine-tune", id="finetune"):
                build_finetune_tab(choice)
            with gr.Tab("Measure", id="measure"):
                build_measure_tab(choice)
    # Past 32 waiting visitors, a new one is told so. ZeroGPU would allow only one without this.
    demo.queue(max_size=32, api_open=False)
    return demo


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app as the command line says."""
    p = argparse.ArgumentParser(prog="app.py", description="Serve the app.")
    on_space = "SPACE_ID" in os.environ
    p.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1")
    p.add_argument("--port", type=int, default=7860)
    p.add_argument("--share", action="store_true", help="also through a public gradio.live address")
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    p.add_argument("--bf16", action="store_true", help="bfloat16, where it is faster")
    o = p.parse_args(arguments)
    if o.bf16:
        os.environ["DDPM_DEMO_BF16"] = "1"
    keep_memory()
    torch.set_num_threads(1)  # but for the thread that runs the networks
    alone = o.host in ("127.0.0.1", "localhost", "::1") and not o.share and not on_space
    demo = build_app(any_repo=alone)  # strangers can't fill this disk
    demo.launch(
        server_name=o.host,
        server_port=o.port,
        share=o.share,
        inbrowser=o.open,
        prevent_thread_lock=True,
        **LAUNCH,
    )
    warm_up()
    demo.block_thread()
