"""Ships a training run: weights in half precision with a model card, samples and loss curve."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_demo.config import SampleConfig, from_dict, require
from ddpm_demo.inference.generate import generate, timesteps_of
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.machine.files import require_writable, write_atomically
from ddpm_demo.media import convert, encode
from ddpm_demo.media.plots import as_file, line_plot
from ddpm_demo.models.checkpoint import (
    Checkpoint,
    digest,
    load_tensors,
    model_files,
    save_checkpoint,
)
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing import cards
from ddpm_demo.publishing.cards import MEAN, Story, card, check_samplers
from ddpm_demo.publishing.private import public
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.state import weights
from ddpm_demo.training.trainer import EMA, RAW

STORY = "card.json"  # the file with a shipped model's `Story`, to make its card again
PAGE = 10  # how many samples are drawn at once, and are in a row


def ship(
    run: Path,
    folder: Path,
    story: Story,
    *,
    sample: Mapping[str, Any] | None = None,
    samplers: Sequence[Mapping[str, Any]] | None = None,
    kind: str = EMA,
) -> Checkpoint:
    """Make a shipped model in `folder` from the finished or paused run in `run`.

    The run needs weights and a log. Its state and previews may be missing.

    Args:
        sample: the model's best sampling settings, as fields of `SampleConfig`.
        samplers: rows with the measured quality of samplers, for the app's time limit (see
            `cards.COLUMNS`).
        kind: which weights to ship. "ema" is the average. The run's state has those of the last
            step ("model"), and may have other averages ("ema-0.05"). "mean" is halfway between
            the average and the model that the run started from (Wortsman et al. 2022).

    Returns:
        The shipped checkpoint, read back from its file.

    Raises:
        ValueError: `run` is not the folder of a run, or a value is not allowed.
    """
    source = RunFolder(run)
    require(source.log.is_file(), "RUN", str(run), f"the folder of a run, with {source.log.name}")
    require(bool(source.rows()), "log of the run", str(source.log), "one that has a line")
    require(not folder.is_file(), "FOLDER", str(folder), "a folder")
    from_dict(SampleConfig, sample or {})
    require_writable(folder)
    checkpoint = public(load_checkpoint(run))
    if kind != EMA:
        require(source.resumable(), "RUN", str(run), f"one with {source.state.name}")
        state, about_run = load_tensors(source.state)
        own = _mean(checkpoint, about_run) if kind == MEAN else weights(state, kind)
        require(bool(own), "RUN", str(run), f"one with the weights {kind}")
        checkpoint.model.load_state_dict(own)
        checkpoint.info |= {"raw": True} if kind == RAW else {"weights": kind}
    if sample is not None:
        checkpoint.info["sample"] = dict(sample)
    if samplers is not None:
        checkpoint.info["samplers"] = check_samplers(samplers)
    timesteps_of(checkpoint, checkpoint.best)  # raises before anything is written
    if run.resolve() != folder.resolve():
        about = {"program": "ddpm_demo", "model": folder.name}
        film = source.film_bytes(about) if checkpoint.info.get("base") else None
        save_checkpoint(folder, checkpoint, torch.float16)
        write_atomically(RunFolder(folder).log, source.log.read_bytes())
        if film:
            write_atomically(RunFolder(folder).film, film)
        (folder / "README.md").unlink(missing_ok=True)  # its numbers belong to older weights
    elif sample is not None or samplers is not None:
        save_checkpoint(folder, checkpoint, torch.float16)
    write_atomically(folder / STORY, (json.dumps(vars(story), indent=1) + "\n").encode())
    return make_card(folder)


def _mean(checkpoint: Checkpoint, run: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights halfway between a run's and those that it started from. Empty if it had none.

    Raises:
        ValueError: the model that it started from has other weights now.
    """
    base = (run.get("configs") or {}).get("base") or {}
    if not base:
        return {}
    first = load_checkpoint(base["name"])
    same = digest(first.model) == base["weights"]
    require(same, "model that the run started from", first.name, "as it was then")
    pairs = zip(
        first.model.state_dict().items(), checkpoint.model.state_dict().values(), strict=True
    )
    return {name: (a + b) / 2 for (name, a), b in pairs}


def make_card(folder: Path) -> Checkpoint:
    """Make the card, samples and loss curve of a shipped model again, from its files.

    Numbers that `evaluate --card` has written stay.

    Returns:
        The checkpoint, read from its file with all rounding.

    Raises:
        ValueError: the folder is not a shipped model's.
    """
    shipped, log, text = load_checkpoint(folder), RunFolder(folder).rows(), folder / "README.md"
    shipped.name = folder.name
    require(bool(log), "log of the model", str(RunFolder(folder).log), "one that has a line")
    story = read_story(folder)
    shown = dataclasses.replace(shipped.best, n=cards.SHOWN, seed=0)
    most = cards.SHOWN
    pages = (shown.but(n=min(PAGE, most - k), seed=k) for k in range(0, most, PAGE))
    sheet = convert.grid(np.concatenate([_drawn(shipped, page) for page in pages]), PAGE, scale=2)
    about = RunSpec(folder.name, shown).to_metadata(shipped.classes)
    encode.write(folder / "samples.png", [sheet], metadata=about)
    lines = {}
    for key, said in (("train", "training"), ("held_out", "held out (EMA)")):
        rows = [row for row in log if row[key]]
        lines[said] = [row["images"] for row in rows], [row[key] for row in rows]
    plot = line_plot(lines, "pictures seen", "loss", log=True)
    write_atomically(folder / "loss.svg", as_file(plot).encode())
    old = text.read_text("utf-8") if text.is_file() else ""
    _, section, numbers = old.partition(f"\n{cards.NUMBERS}\n")
    words = card(folder.name, shipped, log, story, beside=_beside(folder, shipped))
    write_atomically(text, (words + section + numbers).encode())
    return shipped


def _drawn(checkpoint: Checkpoint, config: SampleConfig) -> NDArray[np.uint8]:
    *_, last = generate(checkpoint, config)
    return convert.to_uint8(last.x_t)


def _beside(folder: Path, student: Checkpoint) -> bool:
    """Draw a few pictures of a student's teacher, and below them the student's own.

    The student has a row for each number of steps. Returns False, and draws nothing, if the model
    has no teacher, or the teacher isn't shipped beside it.
    """
    name = str(student.info.get("teacher", {}).get("name", ""))
    if not name or not model_files(folder.parent / name):
        return False
    teacher = load_checkpoint(folder.parent / name)
    rows = [_drawn(teacher, teacher.best.but(n=PAGE, seed=0))]
    own = student.best.but(n=PAGE, seed=0)
    rows += [_drawn(student, own.but(steps=int(steps))) for steps in student.info["few"]]
    encode.write(folder / cards.BESIDE, [convert.grid(np.concatenate(rows), PAGE, scale=2)])
    return True


def read_story(folder: Path) -> Story:
    """Read the `Story` of a shipped model.

    Raises:
        ValueError: its file is missing or can't be read.
    """
    path = folder / STORY
    require(
        path.is_file(), "FOLDER", str(folder), f"one with {STORY}", "`ship RUN FOLDER` makes it"
    )
    try:
        return from_dict(Story, json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} can't be used: {error}") from None
