"""The entry "More models from the Hub": published models from the Hub, and folders of this disk."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gradio as gr

from ddpm_demo.models.listed import LISTED
from ddpm_demo.ui.components.controls import QUIET, ModelChoice
from ddpm_demo.ui.server.lazy import called, streamed

FIRST = next(iter(LISTED))
HANDLERS = "ddpm_demo.ui.components.hub_handlers"


def choose(
    choice: ModelChoice, own: Mapping[str, str], got: tuple[str, str] | None
) -> dict[Any, Any]:
    """Add the downloaded model to the visitor's list, and choose it."""
    return choice.add(own, *got) if got else {choice.own: gr.skip(), choice.name: gr.skip()}


def build_hub_entry(choice: ModelChoice, any_repo: bool) -> None:
    """Lay out the entry, below the list of models."""
    own_words = ", or type the name of a repo or a folder" if any_repo else ""
    with gr.Accordion("More models from the Hub", open=False, elem_id="hub") as entry:
        repo = gr.Dropdown(
            list(LISTED),
            value=FIRST,
            allow_custom_value=any_repo,
            label="Published models" if not any_repo else "Repo or folder",
            info=f"Choose one{own_words}.",
            elem_id="hub-repo",
        )
        line = gr.HTML(elem_id="hub-line", padding=False)
        with gr.Row():
            load = gr.Button(
                "Get it", variant="primary", size="md", elem_id="hub-get", min_width=80
            )
            stop = gr.Button("Stop", size="md", elem_id="hub-stop", min_width=80)
    about = called(f"{HANDLERS}:about")

    def tell(repo: Any) -> str:
        words: str = about(repo, any_repo)
        return words

    gr.on([entry.expand, repo.change], tell, repo, line, concurrency_limit=4, **QUIET)
    got = gr.State()
    event = load.click(
        functools.partial(streamed(f"{HANDLERS}:get"), any_repo),
        repo,
        [line, got],
        concurrency_limit=4,
        **QUIET,
    )
    event.success(
        functools.partial(choose, choice),
        [choice.own, got],
        [choice.own, choice.name],
        queue=False,
        **QUIET,
    )
    stop.click(
        lambda: "Stopped. What has come stays, and the next try goes on from there.",
        outputs=line,
        cancels=[event],
        queue=False,
        **QUIET,
    )
    gr.on(None, called(f"{HANDLERS}:offer"), None, [entry, line], **QUIET)
