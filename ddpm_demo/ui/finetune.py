"""The tab "Fine-tune": a copy of a model goes to one class while one watches."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.utils import get_upload_folder

from ddpm_demo import data, images
from ddpm_demo.checkpoint import (
    ZOO,
    Checkpoint,
    CheckpointError,
    available,
    describe,
    load_checkpoint,
    save_tensors,
)
from ddpm_demo.classifier import load_classifier
from ddpm_demo.config import SampleConfig, TrainConfig, number, require
from ddpm_demo.finetune import estimate, finetune, settings
from ddpm_demo.generate import generate
from ddpm_demo.metrics import Summary
from ddpm_demo.plots import line_plot
from ddpm_demo.train import Progress, preview
from ddpm_demo.ui import disk, player, runtime
from ddpm_demo.ui.generate import ModelChoice, find
from ddpm_demo.ui.runtime import GPU, friendly

CHUNK = 40.0 if os.environ.get("SPACES_ZERO_GPU") else math.inf  # seconds of a GPU at a time
BATCH_MOST, STEPS_MOST, SIZE_MOST = 2048, 100_000, 64
LANE: dict[str, Any] = {"concurrency_id": "finetune", "concurrency_limit": 1}  # of long work
EVERY = 0.3  # seconds between two messages
ALL = "all of the data"
STOP = "stop"  # a file in a visitor's folder: the training, maybe in another process, ends
STILL = "Your fine-tuning is still running; stop it before starting another."
JUDGED = 64  # samples on each side of the forgetting meter
PANELS = ("Before: the base model", "Now: the same seeds")

_busy: set[str] = set()  # folders of visitors whose fine-tuning runs or waits
_guard = threading.Lock()


@functools.lru_cache(maxsize=3)
def _load(dataset: str, size: int, channels: int, train: bool) -> data.Images:
    return data.load(dataset, data.DATA_DIR, size=size, channels=channels, train=train)


def data_of(dataset: Any, size: int, channels: int, *, train: bool = True) -> data.Images:
    """Pictures to train on or to test with, as a model takes them.

    Raises:
        ValueError: they can't be had, or not by a visitor, or would fill the memory.
    """
    dataset = str(dataset)
    folder = dataset.startswith("folder:")
    known = f"{', '.join(data.NAMES)}, as others than its host use this app"
    require(not (runtime.strangers and folder), "data", dataset, known)
    if not folder:  # whole sets at the size of a model that anyone may have uploaded
        number("size of the model", size, 8, SIZE_MOST, whole=True)
    return _load(dataset, size, channels, train)


def give_way() -> Iterator[None]:
    """On a CPU, whoever waits for pictures goes first: goes on once nobody does."""
    while runtime.device().type == "cpu" and runtime.batcher.busy:
        time.sleep(0.05)
        yield


def classes_of(base: Checkpoint) -> list[str]:
    """Classes that a model can go to, as far as they are known without its data."""
    if base.classes:
        return base.classes
    with contextlib.suppress(CheckpointError):
        return list(load_classifier(base.info.get("dataset") or "cifar10").config.classes)
    return []


def plan(
    base: Checkpoint, dataset: Any, only: Any, steps: Any, batch: Any, lr: Any, grids: Any
) -> tuple[data.Images, TrainConfig]:
    """The pictures and the configuration that the controls, or a raw API call, ask for.

    Args:
        grids: how many times on the way samples are drawn.

    Raises:
        ValueError: a value that is not allowed, or data that can't be had or doesn't fit.
    """
    number("steps", steps, 1, STEPS_MOST, whole=True)
    number("batch size", batch, 1, BATCH_MOST, whole=True)
    number("grids", grids, 1, 100, whole=True)
    shape = base.model.config
    name = str(dataset or "").strip() or str(base.info.get("dataset") or "cifar10")
    found = data_of(name, shape.size, shape.channels)
    if only != ALL:
        found = found.only(str(only))
    every = max(1, math.ceil(steps / grids))
    values = {"dataset": name, "batch_size": batch, "lr": lr, "images": steps * batch}
    return found, settings(base, found, preview_every=every * batch, **values)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


@GPU
def _estimate(base: Checkpoint, found: data.Images, config: TrainConfig) -> float:
    return estimate(base, found, config, device=runtime.device())


@friendly
def show_estimate(own: Mapping[str, str], name: Any, *controls: Any) -> Iterator[str]:
    """How long it would take, from two steps on this machine."""
    yield "Timing two steps…"
    base = find(name, own)
    found, config = plan(base, *controls)
    seconds = _estimate(base, found, config)
    yield f"About {_minutes(seconds)} on this {runtime.device().type}, from two steps timed now."


@GPU
def _chunk(
    base: Checkpoint,
    found: data.Images,
    config: TrainConfig,
    out: Path,
    deadline: float,
    resume: bool,
) -> Iterator[Progress | str]:
    """Train until the end, Stop, or the end of the time that ZeroGPU or this server gives; a
    sentence in between says that the batch was halved."""
    until, stop = min(deadline, time.monotonic() + CHUNK), out.parent / STOP

    def should_stop() -> bool:
        return stop.exists() or time.monotonic() > until

    said: list[str] = []
    options = {"resume": resume, "device": runtime.device(), "should_stop": should_stop}
    for p in finetune(base, found, config, out, say=said.append, **options):
        yield from said
        said.clear()
        yield p


def _curve(log: list[tuple[int, float]]) -> str:
    """The loss so far, a mean over tenths of the run so far at the finest."""
    if len(log) < 2:
        return ""
    width = max(1, len(log) // 60)
    parts = [log[i : i + width] for i in range(0, len(log), width)]
    return line_plot(
        [float(part[-1][0]) for part in parts],
        [sum(loss for _, loss in part) / len(part) for part in parts],
        "step",
        "loss",
    )


def new_folder(folder: str | None) -> str:
    """A visitor's own folder, deleted with the session."""
    if folder in _busy:  # said at once; the lane's queue would let it wait and then begin anew
        raise gr.Error(STILL, print_exception=False)
    try:
        return folder or disk.tuning_folder()
    except OSError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from None


def _own(folder: str | None) -> Path:
    """The folder that `new_folder` made.

    Raises:
        ValueError: it made none, or it is gone.
    """
    if not folder or not Path(folder).is_dir():
        raise ValueError("There is no fine-tuning of yours: press Start.")
    return Path(folder)


def forget(folder: str | None) -> None:
    """End what goes on in a folder, and delete it."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


@friendly
def run(
    choice: ModelChoice,
    resume: bool,
    folder: str,
    own: Mapping[str, str],
    name: Any,
    *controls: Any,
) -> Iterator[tuple[Any, ...]]:
    """Stream a fine-tuning: player, line of progress, loss curve, result, and the model list.

    Raises:
        ValueError: a bad value, or a second one of the same visitor.
    """
    known = _own(folder)
    with _guard:
        if folder in _busy:
            raise ValueError(STILL)
        _busy.add(folder)
    try:
        yield from _run(choice, resume, known, own, name, *controls)
    finally:
        _busy.discard(folder)


def _run(
    choice: ModelChoice,
    resume: bool,
    folder: Path,
    own: Mapping[str, str],
    name: Any,
    *controls: Any,
) -> Iterator[tuple[Any, ...]]:
    def say(
        screen: Any = None, line: Any = None, curve: Any = None, more: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        kept = [gr.skip() if part is None else part for part in (screen, line, curve)]
        return (*kept, *(more or (gr.skip(), gr.skip(), gr.skip())))

    disk.require_room()
    yield say(line="Loading the pictures (downloaded on first use)…")
    base = find(name, own)
    found, config = plan(base, *controls)
    out, only = folder / "run", str(controls[1])
    (folder / STOP).unlink(missing_ok=True)
    if resume:
        require(
            (out / "state.safetensors").exists(), "run to continue", None, "one of yours: Start"
        )
    else:
        shutil.rmtree(out, ignore_errors=True)
        yield say(line="Timing two steps…")
        seconds = _estimate(base, found, config)
        yield say(line=f"About {_minutes(seconds)} on this {runtime.device().type}.")

    several = len(found.labels.unique()) > 1  # as the trainer draws them
    before = images.to_uint8(preview(base.model, base.diffusion, by_class=several))
    first, opened = player.frame(0, None, before, before), False
    most = runtime.most_seconds(runtime.LANE_MINUTES, 60 if runtime.strangers else math.inf)
    deadline, late = time.monotonic() + most, False
    log: list[tuple[int, float]] = []
    done, sent, share, ended = 0, 0.0, 0.0, False
    while not ended:
        ended = True  # unless a step is made, and it is not the last
        for p in _chunk(base, found, config, out, deadline, resume):
            for _ in give_way():
                yield say()
            if isinstance(p, str):
                yield say(line=p)
                sent = time.monotonic() + 3  # so that it can be read
                continue
            done, share, ended = p.step, p.done, p.done >= 1
            total = math.ceil((config.images or 0) * p.step / p.images)  # as the batch is now
            log.append((p.step, p.loss))
            if p.report or time.monotonic() - sent >= EVERY:
                line = f"Step {p.step} of {total}, loss {p.loss:.4f}, {p.rate:.0f} pictures/s" + (
                    f", about {_minutes(p.eta)} to go." if p.done < 1 else "."
                )
                shown = None
                if p.report:
                    now = images.to_uint8(p.report.preview)
                    shown = player.frame(p.step, None, before, now, seconds=p.seconds)
                if shown and not opened:
                    opening = player.header(
                        before.shape,
                        total,
                        panels=PANELS,
                        unit="step",
                        title=f"{name} goes to {only}",
                        meta={"model": name, "class": only, "steps": total, "lr": config.lr},
                    )
                    shown, opened = _joined(opening, first, shown), True
                yield say(shown, line if time.monotonic() >= sent else None, _curve(log))
                sent = max(sent, time.monotonic())
        resume = True
        late = time.monotonic() > deadline
        ended = ended or late or (folder / STOP).exists()
    require(done > 0, "steps", controls[2], "more than this run has had: it is at its end")
    title, result = keep(folder, only, done)
    updates = choice.add(own, title, str(result))
    line = f"“{title}” is in the model list of Generate."
    why = f", after the {_minutes(most)} that a run may take here" if late else ""
    stopped = "" if share >= 1 else player.note(f"Stopped at step {done}{why}; Continue goes on.")
    more = (
        gr.update(value=str(result), interactive=True),
        updates[choice.own],
        updates[choice.name],
    )
    yield say(stopped or None, line, None, more)


def _joined(opening: str, *frames: str) -> str:
    """One message of several."""
    message = json.loads(opening)
    message["frames"] = [f for text in frames for f in json.loads(text)["frames"]]
    return json.dumps(message)


def keep(folder: Path, only: str, step: int) -> tuple[str, Path]:
    """The result so far as one file of half-precision weights, under a name of its own."""
    checkpoint = load_checkpoint(folder / "run")
    base = checkpoint.info.get("base", "model")
    word = "all" if only == ALL else "".join(ch if ch.isalnum() else "-" for ch in only)
    path = folder / f"{base}-{word}-{step}.safetensors"
    state = {k: v.half() for k, v in checkpoint.model.state_dict().items()}
    save_tensors(path, state, describe(checkpoint))
    return f"{path.stem} (yours)", path


def stop(folder: str | None) -> None:
    """Ask the training to save and end after its step."""
    if folder and Path(folder).is_dir():
        (Path(folder) / STOP).touch()


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
        kept = _own(folder) / path.name
        shutil.copyfile(path, kept)
    except (ValueError, OSError) as error:
        gr.Warning(html.escape(str(error)))
        return gr.skip(), gr.skip(), gr.skip()
    updates = choice.add(own, f"{path.stem} (yours)", str(kept))
    line = f"“{path.stem}” is in the model list of Generate."
    return line, updates[choice.own], updates[choice.name]


@friendly
def forgetting(own: Mapping[str, str], base: Any, folder: str, only: Any) -> Iterator[str]:
    """Shares of the classes among samples before and after, as a table.

    Raises:
        ValueError: there is no result yet, or no classifier for its pictures.
    """
    results = sorted(Path(folder or "/nowhere").glob("*.safetensors"), key=os.path.getmtime)
    require(bool(results), "result", None, "a fine-tuning of yours: Start")
    before, after = find(base, own), runtime.model(str(results[-1]))
    judge = load_classifier(before.info.get("dataset") or "cifar10")
    found = []
    for word, checkpoint in (("before", before), ("after", after)):
        summary = Summary()
        for seed in range(0, JUDGED, 16):
            yield f"Samples {word}: {seed} of {JUDGED}…"
            config = SampleConfig(steps=25, n=16, seed=seed)
            *_, last = generate(checkpoint, config, denoiser=runtime.denoiser)
            pixels = torch.from_numpy(np.ascontiguousarray(images.to_uint8(last.x_t)))
            summary.add(*judge.extract(pixels.permute(0, 3, 1, 2)))
        found.append(summary.counts)
    rows = [
        f"| {'**' + name + '**' if name == only else name} | {a} | {b} |"
        for name, a, b in zip(judge.config.classes, *(f.tolist() for f in found), strict=True)
    ]
    yield "\n".join(
        [
            f"Of {JUDGED} samples without a class, by a classifier of this repository:",
            "",
            "| class | before | after |",
            "| --- | ---: | ---: |",
            *rows,
        ]
    )


def push(folder: str, repo: Any) -> str:
    """Uploads the newest result with a card, with the token of this machine's login.

    Raises:
        gr.Error: why it can't be.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = None
    try:
        if runtime.strangers:  # or they would use a login that isn't theirs
            raise ValueError("Only who runs this app alone, on their own machine, can push.")
        results = sorted(Path(folder or "/nowhere").glob("*.safetensors"), key=os.path.getmtime)
        require(bool(results), "result", None, "a fine-tuning of yours: Start")
        require(bool(str(repo or "").strip()), "repository", repo, "such as YOU/cifar10-ship")
        token = get_token()
        if not token:
            raise ValueError("No Hugging Face login here: run `hf auth login`, or set HF_TOKEN.")
        info = load_checkpoint(results[-1]).info
        text = (
            "---\nlibrary_name: ddpm_demo\ntags: [ddpm, diffusion]\n---\n"
            f"# {results[-1].stem}\n\nA DDPM, fine-tuned from `{info.get('base')}` with ddpm_demo: "
            f"{info.get('images', 0):,} pictures seen on the way, settings {info.get('train')}.\n"
        )
        api = HfApi()
        url = api.create_repo(str(repo).strip(), exist_ok=True)
        for path, name in ((results[-1], "model.safetensors"), (text.encode(), "README.md")):
            api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=str(repo).strip())
    except (ValueError, OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = reason.replace(token or "\0", "…")  # whatever the Hub says
        raise gr.Error(html.escape(reason), print_exception=False) from None
    return f"Pushed to {url}"


def _films() -> list[tuple[str, str]]:
    """Shipped morph films, and a line for each."""
    return [
        (str(ZOO / name / "morph.gif"), name)
        for name in available()
        if (ZOO / name / "morph.gif").is_file()
    ]


def build_finetune_tab(choice: ModelChoice) -> None:
    """Lay out the tab; call it inside `with gr.Tab(...)`."""
    gpu = runtime.device().type != "cpu"
    names = available()
    first = "cifar10" if "cifar10" in names else names[0]
    classes = classes_of(runtime.model(first))
    folder = gr.State(None, time_to_live=6 * 3600, delete_callback=forget)
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            screen = player.Player(
                elem_id="tuner",
                panels=PANELS,
                empty="Press Start: sixteen seeds before, and the same seeds as training goes on.",
            )
            curve = gr.HTML(elem_id="tune-curve")
            for path, name in _films():
                gr.Image(path, label=f"{name}: how it got there", interactive=False, buttons=[])
        with gr.Column(scale=1, min_width=280):
            with gr.Row():
                start = gr.Button(
                    "Start", variant="primary", size="lg", elem_id="tune", min_width=90
                )
                halt = gr.Button("Stop", elem_id="tune-stop", min_width=70)
                onward = gr.Button("Continue", elem_id="tune-on", min_width=90)
            line = gr.Markdown(
                f"Runs on this machine's {'GPU' if gpu else 'CPU: small numbers, some minutes'}.",
                elem_id="tune-line",
            )
            base = gr.Dropdown(
                names,
                value=first,
                label="Base model",
                info="θ: a copy of it is trained; the base itself stays as it is.",
                elem_id="tune-base",
            )
            only = gr.Dropdown(
                [ALL, *classes],
                value="ship" if "ship" in classes else ALL,
                label="Class",
                info="y: which pictures the copy sees from now on.",
                elem_id="tune-class",
                allow_custom_value=True,
            )
            steps = gr.Number(
                100 if gpu else 40,
                precision=0,
                label="Steps",
                info="Updates of θ. 98 of 512 pictures are ten epochs of a CIFAR-10 class.",
                elem_id="tune-steps",
            )
            batch = gr.Number(
                512 if gpu else 16,
                precision=0,
                label="Batch size",
                info="Pictures in a step.",
                elem_id="tune-batch",
            )
            guess = gr.Button("How long will it take?", size="sm", elem_id="tune-estimate")
            with gr.Accordion("More settings", open=False):
                lr = gr.Number(
                    2e-4,
                    label="Learning rate",
                    info="Above 0, up to 0.01.",
                    step=1e-5,
                    elem_id="tune-lr",
                )
                grids = gr.Slider(
                    1, 40, 8, step=1, label="Grids", info="How often samples are drawn on the way."
                )
                source = gr.Textbox(
                    "",
                    label="Data",
                    info="Empty: what the base was trained on. Or cifar10, or folder:PATH.",
                    elem_id="tune-data",
                    visible=not runtime.strangers,
                )
            with gr.Accordion("Result", open=True):
                result = gr.DownloadButton("Download weights", interactive=False, size="sm")
                meter = gr.Button("What did it forget?", size="sm", elem_id="tune-meter")
                table = gr.Markdown(elem_id="tune-table")
                upload = gr.File(
                    label="Load a .safetensors file", file_types=[".safetensors"], height=110
                )
                with gr.Column(visible=not runtime.strangers):
                    repo = gr.Textbox(
                        label="Push to the Hub",
                        info="Repository; the login of this machine is used.",
                        placeholder="YOU/cifar10-ship",
                    )
                    send = gr.Button("Push", size="sm")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    controls = [source, only, steps, batch, lr, grids]
    outputs = [screen, line, curve, result, choice.own, choice.name]
    for button, resume in ((start, False), (onward, True)):
        button.click(new_folder, folder, folder, **quiet).success(
            functools.partial(run, choice, resume),
            [folder, choice.own, base, *controls],
            outputs,
            **quiet,
            **LANE,
        )
    halt.click(stop, folder, queue=False, **quiet)
    guess.click(show_estimate, [choice.own, base, *controls], line, **quiet, **LANE)
    meter.click(forgetting, [choice.own, base, folder, only], table, **quiet, **LANE)
    upload.upload(new_folder, folder, folder, **quiet).success(
        functools.partial(add_file, choice),
        [folder, choice.own, upload],
        [line, choice.own, choice.name],
        preprocess=False,
        **quiet,
    )
    send.click(push, [folder, repo], line, **quiet, **LANE)

    @friendly
    def chosen(own: Mapping[str, str], name: Any) -> Iterator[Any]:
        names = classes_of(find(name, own))
        yield gr.update(choices=[ALL, *names], value=names[0] if names else ALL)

    base.change(chosen, [choice.own, base], only, **quiet)
