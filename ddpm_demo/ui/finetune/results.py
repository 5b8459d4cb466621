"""What is done with a fine-tuned model: list, download, judge and push it, or upload another."""

from __future__ import annotations

import functools
import html
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.utils import get_upload_folder

from ddpm_demo.config import SampleConfig, require
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.evaluation.metrics import Summary
from ddpm_demo.evaluation.samples import pages
from ddpm_demo.media.plots import bar_plot
from ddpm_demo.models.checkpoint import save_file
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing import push as publish
from ddpm_demo.ui.generate.tab import ModelChoice
from ddpm_demo.ui.server import disk, runtime
from ddpm_demo.ui.server.runtime import friendly
from ddpm_demo.ui.server.work import existing, give_way, own_folder

JUDGED, PAGE = 64, 16  # samples on each side of the forgetting meter, and at once
NONE = "a fine-tuning of yours: Start"


@dataclass(frozen=True)
class Result:
    """A fine-tuned model.

    Attributes:
        path: its file.
        base: what `runtime.model` takes for the model that it began as.
    """

    path: Path
    base: str


def _free(path: Path) -> Path:
    """`path`, numbered if there is such a file: a model that was listed keeps its weights."""
    k, new = 1, path
    while new.exists():
        k += 1
        new = path.with_name(f"{path.stem}-{k}{path.suffix}")
    return new


def keep(folder: Path, base: str, only: str | None, step: int) -> Result:
    """What the run in a visitor's folder has reached, as one file of half-precision weights."""
    checkpoint = load_checkpoint(folder / "run")
    word = "".join(ch if ch.isalnum() else "-" for ch in only or "all")
    name = Path(checkpoint.info.get("base", "model")).name  # a published one's begins with OWNER/
    path = _free(folder / f"{name}-{word}-{step}.safetensors")
    save_file(path, checkpoint)
    return Result(path, base)


def _added(choice: ModelChoice, own: Mapping[str, str], path: Path) -> tuple[Any, ...]:
    """The line, and a visitor's list of models with one more."""
    title = f"{path.stem} (yours)"
    updates = choice.add(own, title, str(path))
    line = f"“{html.escape(title)}” is in the model list of Generate."
    return line, updates[choice.own], updates[choice.name]


def listed(choice: ModelChoice, own: Mapping[str, str], made: Result | None) -> tuple[Any, ...]:
    """Updates after a run: line, download button, list of models, and no more to be listed."""
    if made is None:
        return (gr.skip(),) * 6
    line, *lists = _added(choice, own, made.path)
    return line, gr.update(value=str(made.path), interactive=True), *lists, made, None


def add_file(
    choice: ModelChoice, folder: str, own: Mapping[str, str], upload: Any
) -> tuple[Any, ...]:
    """Takes an uploaded safetensors file into the visitor's list, after loading it."""
    try:
        path = Path(str((upload or {}).get("path") or ""))
        inside = path.resolve().is_relative_to(Path(get_upload_folder()).resolve())
        require(inside and path.is_file(), "file", path.name, "an upload of yours")
        require(path.suffix == ".safetensors", "file", path.name, "a .safetensors file")
        load_checkpoint(path)
        disk.require_room()
        kept = _free(existing(folder) / path.name)
        shutil.copyfile(path, kept)
    except (ValueError, OSError, gr.Error) as error:
        gr.Warning(html.escape(getattr(error, "message", str(error))))
        return gr.skip(), gr.skip(), gr.skip()
    return _added(choice, own, kept)


@friendly
def forgetting(result: Result | None) -> Iterator[str]:
    """Shares of the classes among samples before and after, as a plot.

    Raises:
        ValueError: there is no result yet, or no classifier for its pictures.
    """
    require(result is not None, "result", None, NONE)
    assert result
    dataset = runtime.model(result.base).info.get("dataset") or "cifar10"
    judge = load_classifier(dataset)
    shares = {}
    for k, (word, source) in enumerate((("before", result.base), ("after", str(result.path)))):
        model, summary = runtime.model(source), Summary()
        config = SampleConfig(steps=min(25, model.diffusion.T), n=JUDGED)
        for page in pages(config, PAGE):
            done = (k + summary.n / JUDGED) / 2
            said = runtime.bar(f"Samples {word}: {summary.n} of {JUDGED}", done)
            yield f'<div class="said">{said}</div>'
            for _ in give_way():
                yield gr.skip()
            for _, pictures in runtime.draw(source, page):
                if pictures is not None:
                    summary.add(*judge.extract(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        shares[word] = (summary.counts / summary.n).tolist()
    yield (
        f'<div class="said">What {JUDGED} samples without a class are, says a classifier of this '
        f"repository:{bar_plot(list(judge.config.classes), shares)}</div>"
    )


@friendly
def push(local: bool, result: Result | None, repo: Any) -> Iterator[str]:
    """Uploads a result with a card, with the token of this machine's login.

    Raises:
        ValueError: why it can't be.
    """
    if not local:
        raise ValueError("Only an app for its owner alone pushes: the login is theirs.")
    require(result is not None, "result", None, NONE)
    assert result
    repo = str(repo or "").strip()
    require(bool(repo), "repository", repo, publish.NAME)
    yield "Uploading…"
    yield f"Pushed to {html.escape(publish.push(result.path, repo))}"


def build_results(
    choice: ModelChoice, folder: gr.State, line: gr.HTML, local: bool
) -> tuple[gr.State, Callable[[Any], Any]]:
    """Lay out the entry "Result".

    Args:
        folder: the visitor's own.
        line: for a sentence on what was done.

    Returns:
        Where a run leaves its `Result`, and what to call with the event of a run.
    """
    made, last = gr.State(None), gr.State(None)
    with gr.Accordion("Result", open=True):
        download = gr.DownloadButton(
            "Download weights", interactive=False, size="sm", elem_id="tune-download"
        )
        meter = gr.Button("What did it forget?", size="sm", elem_id="tune-meter")
        table = gr.HTML(elem_id="tune-table", padding=False)
        upload = gr.UploadButton("Load a .safetensors file", file_types=[".safetensors"], size="sm")
        with gr.Column(visible=local):
            repo = gr.Textbox(
                label="Push to the Hub",
                info="A repository; with the login of this machine.",
                placeholder="YOU/cifar10-ship",
                elem_id="tune-repo",
            )
            send = gr.Button("Push", size="sm", elem_id="tune-push")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    meter.click(
        forgetting,
        last,
        table,
        concurrency_id="model",  # it samples, as Generate does
        concurrency_limit=runtime.RUNS,
        **quiet,
    )
    upload.upload(own_folder, folder, folder, **quiet).success(
        functools.partial(add_file, choice),
        [folder, choice.own, upload],
        [line, choice.own, choice.name],
        preprocess=False,
        **quiet,
    )
    send.click(functools.partial(push, local), [last, repo], line, **quiet)

    def follow(run: Any) -> Any:
        return run.success(
            functools.partial(listed, choice),
            [choice.own, made],
            [line, download, choice.own, choice.name, last, made],
            **quiet,
        )

    return made, follow
