"""The recorded runs that the tab "Fine-tune" shows before anything is trained."""

import base64
import json

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import models_folder
from ddpm_demo.ui.finetune import handlers as finetune


@pytest.mark.parametrize("name", finetune.recorded())
def test_a_shipped_run_is_shown_at_once(name: str) -> None:
    (said,) = finetune.show_recorded(name)
    message, log = (
        json.loads(said[0]),
        (models_folder() / name / "log.jsonl").read_text().splitlines(),
    )
    run, frames = message["run"], message["frames"]
    steps = [json.loads(row)["step"] for row in log]
    assert [frame["step"] for frame in frames] == [0, *steps]
    assert run["total"] == steps[-1]
    assert len(frames) / run["fps"] > 3  # seconds: one sees it change
    batch = load_checkpoint(name).info["train"]["batch_size"]
    title = f"{name}: {steps[-1]} steps of {batch} pictures, recorded on another machine in "
    assert run["title"].startswith(title)
    assert "<polyline" in said[1]
    with Image.open(models_folder() / name / "morph.gif") as film:
        assert film.info["duration"] * film.n_frames > 3000
        film.seek(film.n_frames - 1)
        sheet = np.asarray(film.convert("RGB"))
    shape = (2, run["n"], run["h"], run["w"], run["c"])
    before, now = np.frombuffer(base64.b64decode(frames[-1]["d"]), np.uint8).reshape(shape)
    first = np.frombuffer(base64.b64decode(frames[0]["d"]), np.uint8).reshape(shape)
    assert np.array_equal(first[0], first[1])
    assert np.array_equal(before, first[0])
    for k in range(16):  # each pixel of a picture is 4 x 4 of the film's, and so is the gap
        y, x = (132 * i for i in divmod(k, 4))
        large = sheet[y : y + 128, x : x + 128]
        assert np.array_equal(large, now[k].repeat(4, 0).repeat(4, 1))


def test_both_shipped_ones_are_there() -> None:
    assert {"cifar10-horse", "cifar10-ship"} <= set(finetune.recorded())


def test_there_is_no_other() -> None:
    with pytest.raises(gr.Error, match="Recorded run must be"):
        list(finetune.show_recorded("../cifar10-ship"))
