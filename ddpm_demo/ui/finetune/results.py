"""What can be done with a fine-tuned model: list, download, judge and push it."""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.utils import get_upload_folder

from ddpm_demo.config import SampleConfig, require
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.evaluation.features import Summary
from ddpm_demo.evaluation.samples import pages
from ddpm_demo.media.plots import bar_plot
from ddpm_demo.models.checkpoint import save_file
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing import push as publish
from ddpm_demo.ui.components.bar import bar
from ddpm_demo.ui.components.controls import ModelChoice
from ddpm_demo.ui.finetune.asked import NOTHING_TO_COMPARE, NOTHING_YET
from ddpm_demo.ui.server import disk, runtime
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.work import existing, give_way

JUDGED, PAGE = 64, 16  # samples on each side of the forgetting meter, and at once


@dataclass(frozen=True)
class Result:
    """A fine-tuned model.

    Attributes:
        path: its file.
        base: the source of its base, for `runtime.model`.
    """

    path: Path
    base: str


def _free(path: Path) -> Path:
    """A free path: `path`, or `path` with a number, so that listed models keep their weights."""
    k, new = 1, path
    while new.exists():
        k += 1
        new = path.with_name(f"{path.stem}-{k}{path.suffix}")
    return new


def keep(folder: Path, base: str, only: str | None, step: int) -> Result:
    """Save the run in a visitor's folder as one file of half-precision weights."""
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
    """Updates after a run: line, list of models, download, meter and push buttons, the result, and
    no more to be listed."""
    if made is None:
        return (gr.skip(),) * 8
    line, *lists = _added(choice, own, made.path)
    on = gr.update(interactive=True)
    return line, *lists, gr.update(value=str(made.path), interactive=True), on, on, made, None


def add_file(
    choice: ModelChoice, folder: str, own: Mapping[str, str], upload: Any
) -> tuple[Any, ...]:
    """Load an uploaded safetensors file, and add it to the visitor's list."""
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
    """Plot the share of each class among samples before and after.

    Raises:
        ValueError: there is no result yet, or no classifier for its pictures.
    """
    if result is None:
        raise ValueError(NOTHING_TO_COMPARE)
    dataset = runtime.model(result.base).info.get("dataset") or "cifar10"
    judge = load_classifier(dataset)
    shares = {}
    for k, (word, source) in enumerate((("before", result.base), ("after", str(result.path)))):
        model, summary = runtime.model(source), Summary()
        config = SampleConfig(steps=min(25, model.diffusion.T), n=JUDGED)
        for page in pages(config, PAGE):
            done = (k + summary.n / JUDGED) / 2
            said = bar(f"Samples {word}: {summary.n} of {JUDGED}", done)
            yield f'<div class="said">{said}</div>'
            for _ in give_way():
                yield gr.skip()
            for _, pictures in runtime.draw(source, page):
                if pictures is not None:
                    summary.add(*judge.extract(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        shares[word] = (summary.counts / summary.n).tolist()
    yield (
        f'<div class="said">{JUDGED} samples drawn without a class, and what our classifier sees '
        f"in them:{bar_plot(list(judge.config.classes), shares)}</div>"
    )


@friendly
def push(local: bool, result: Result | None, repo: Any) -> Iterator[str]:
    """Upload a result and its card, with the token of this machine's login.

    Raises:
        ValueError: it can't be pushed. The message says why.
    """
    if not local:
        raise ValueError("Visitors can't push: it would use the login of this app's owner.")
    if result is None:
        raise ValueError(NOTHING_YET)
    repo = str(repo or "").strip()
    require(bool(repo), "repository", repo, publish.NAME)
    yield "Uploading…"
    yield f"Pushed to {html.escape(publish.push(result.path, repo))}"
