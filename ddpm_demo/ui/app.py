"""The page: its tabs, its look, and how it is served."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere

import gradio as gr
import torch
from starlette.middleware import Middleware

from ddpm_demo.config import require
from ddpm_demo.devices import keep_memory
from ddpm_demo.ui.finetune.tab import build_finetune_tab
from ddpm_demo.ui.forward.tab import build_forward_tab
from ddpm_demo.ui.generate.tab import build_generate_tab, warm_up
from ddpm_demo.ui.measure.tab import build_measure_tab
from ddpm_demo.ui.server import disk, runtime
from ddpm_demo.ui.server.guard import Guard, Page

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
:is(#measure-why, #measure-line, #tune-line, #hub-line) { font-size: .85rem;
  overflow-wrap: anywhere; }
progress { appearance: none; display: block; width: 100%; height: 8px; margin-top: 4px; border: 0;
  border-radius: 4px; overflow: hidden; background: var(--border-color-primary); }
progress::-webkit-progress-bar { background: var(--border-color-primary); }
progress::-webkit-progress-value { background: var(--color-accent); }
progress::-moz-progress-bar { background: var(--color-accent); }
#tune-table, #tune-recorded { font-size: .85rem; }
#tune-recorded { flex-wrap: wrap; }
#tune-recorded > .block, #tune-line, #measure-line { flex: 1 1 100%; }
#tune-table:not(:has(div.said)) { display: none; }
#measure-result :is(table, tbody, tr, th, td) { border: 0; border-collapse: collapse;
  text-align: left; }
#measure-result :is(th, td) { padding: 4px 16px 4px 0;
  border-bottom: 1px solid var(--border-color-primary); }
#measure-result p { font-size: .85rem; max-width: 70ch; margin: 8px 0; }
#measure-result figure { display: inline-block; width: min(100%, 400px); overflow-x: auto;
  margin: 8px 12px 8px 0; font-weight: 700; vertical-align: top; }
#measure-result svg { display: block; width: 100%; font-weight: 400; }
#pace, #measure-pace { flex: 1 1 100%; min-height: 1.3em; font-size: .85rem; line-height: 1.3;
  color: var(--body-text-color-subdued); text-align: center; }
#act, #measure-act, #tune-act { flex-wrap: wrap; row-gap: 6px; }
#about-model { font-size: .85rem; color: var(--body-text-color-subdued); }
@media (max-width: 640px) {
  /* All four tabs fit, and none is in the menu of those that don't. */
  .tab-container button { padding: 0 7px; font-size: .82rem; }
  .stage-and-controls { margin-bottom: 60px; }
  .stage-and-controls:has(:is(#tune-line, #measure-line)) { margin-bottom: 130px; }
  /* Below the pictures these would be out of reach: keep them under the thumb, and above Gradio's
     labels, whose z-index is 40. */
  #act, #measure-act, #tune-act { position: fixed; inset: auto 0 0 0; z-index: 60;
    padding: 8px 16px;
    background: var(--body-background-fill); border-top: 1px solid var(--border-color-primary); }
}
"""

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    # Larger uploads are refused before any of our code; the paper's network, tuned, has 72 MB.
    "max_file_size": "80mb",
    "show_error": False,
    "enable_monitoring": False,
    "run_history": False,  # or each run's last frame stays in the visitor's browser
    "state_session_capacity": 200,
    "ssr_mode": False,
    "footer_links": ["gradio", "settings"],
    "app_kwargs": {"middleware": [Middleware(Guard)]},
}
AUTH = "DDPM_DEMO_AUTH"  # of the environment; an option would be seen in the list of processes
PATIENCE = 3.0  # seconds for telling visitors that the server is being stopped


def build_app() -> gr.Blocks:
    """The app, ready for `launch(**LAUNCH)`.

    Unless strangers use it (`runtime.strangers`), it is for the owner of this machine alone, who
    may load any repo of the Hub and any folder of this disk, train on such folders, and push to the
    Hub with its login.
    """
    alone = not runtime.strangers
    with Page(title=TITLE, delete_cache=(600, 3600)) as demo:
        gr.Markdown(INTRO)
        with gr.Tab("Generate", id="generate"):
            choice = build_generate_tab(alone)
        with gr.Tab("Forward noising", id="forward"):
            build_forward_tab()
        if choice:
            with gr.Tab("Fine-tune", id="finetune") as tab:
                build_finetune_tab(choice, tab, local=alone)
            with gr.Tab("Measure", id="measure"):
                build_measure_tab(choice, local=alone)
    # Past 32 waiting visitors, a new one is told so. ZeroGPU would allow only one without this.
    demo.queue(max_size=32, api_open=False)
    # By default the queue looks a thousand times a second whether somebody has come, each time at
    # the expense of a network.
    demo._queue.sleep_when_free = 0.01
    return demo


def password() -> tuple[str, str] | None:
    """Name and password that visitors have to know, from the environment.

    Raises:
        ValueError: it is not as it should be.
    """
    words = os.environ.get(AUTH)
    if words is None:
        return None
    user, _, secret = words.partition(":")
    require(bool(user.strip() and secret), AUTH, "…", "USER:PASSWORD")  # it is not told
    return user.strip(), secret


def until_stopped(demo: gr.Blocks) -> None:
    """Serve until Ctrl-C or SIGTERM; then tell those whose runs go on, and end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        warm_up()
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        pass
    runtime.closing.set()  # each run ends at its next step, each one that waits when its turn comes
    queue, until = demo._queue, time.monotonic() + PATIENCE
    while (any(queue.active_jobs) or len(queue)) and time.monotonic() < until:
        time.sleep(0.05)
    demo.close(verbose=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app as the command line says."""
    p = argparse.ArgumentParser(
        prog="app.py",
        description="Serve the app.",
        epilog=f"With {AUTH}=USER:PASSWORD in the environment, visitors have to log in.",
    )
    on_space = "SPACE_ID" in os.environ
    p.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1")
    p.add_argument("--port", type=int, default=7860)
    p.add_argument("--share", action="store_true", help="also through a public gradio.live address")
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    p.add_argument("--bf16", action="store_true", help="bfloat16, where it is faster")
    o = p.parse_args(arguments)
    try:
        auth = password()
        runtime.most_seconds(runtime.RUN_MINUTES, 0)
        runtime.most_seconds(runtime.LANE_MINUTES, 0)
    except ValueError as error:
        p.error(str(error))
    if o.bf16:
        os.environ["DDPM_DEMO_BF16"] = "1"
    keep_memory()
    torch.set_num_threads(1)  # but for the thread that runs the networks
    here = o.host in ("127.0.0.1", "localhost", "::1")
    runtime.strangers = on_space or o.share or not here
    disk.own_uploads()
    demo = build_app()
    demo.launch(
        server_name=o.host,
        server_port=o.port,
        share=o.share,
        inbrowser=o.open,
        prevent_thread_lock=True,
        auth=auth,
        **LAUNCH,
    )
    threading.Thread(target=disk.keep_swept, args=(demo,), daemon=True).start()
    until_stopped(demo)
