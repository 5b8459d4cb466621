"""Watch it learn: the trainer of the command line, looked at, stopped, gone on with and kept."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from ddpm_demo.config import ModelConfig, SampleConfig
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Noise, Schedule
from ddpm_demo.experiments import EXPERIMENTS, learn
from ddpm_demo.experiments.asked import Learn, Recorded
from ddpm_demo.experiments.tools import Plot, Report, Sheet, Tools
from ddpm_demo.inference.generate import generate
from ddpm_demo.media import convert, encode
from ddpm_demo.models.checkpoint import Checkpoint, load_tensors
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.train import train


def digits(name: str, size: int, channels: int, train: bool) -> Images:
    g = torch.Generator().manual_seed(int(train))
    pixels = torch.randint(0, 256, (24, channels, size, size), generator=g).byte()
    return Images(pixels, torch.arange(24) % 10, tuple("0123456789"))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    small = ModelConfig(
        size=8, channels=1, width=8, multipliers=(1,), attention=(4,), time_dim=16, num_classes=10
    )
    usual = dataclasses.replace(learn.TRAIN, batch_size=8, decay=0.0, preview_every=160)
    for name, value in (("SIZE", 8), ("NETWORK", small), ("TRAIN", usual)):
        monkeypatch.setattr(learn, name, value)
    monkeypatch.setenv("DDPM_DEMO_MODELS", str(tmp_path / "none"))
    return Tools(data=digits, folder=tmp_path / "learn")


def until_the_second(tools: Tools, asked: Learn) -> list[Report]:
    """The reports until samples were drawn for the second time; then it is stopped."""
    steps, seen = EXPERIMENTS["learn"](asked, tools), list[Report]()
    for report in steps:
        seen.append(report)
        plots = [panel for panel in report.panels if isinstance(panel, Plot)]
        rows = RunFolder(tools.folder).rows() if tools.folder else []
        if plots and len(rows) >= 2:
            break
    steps.close()  # type: ignore[attr-defined]
    return seen


def test_it_is_the_trainer_of_the_command_line(tools: Tools, tmp_path: Path) -> None:
    *_, report = EXPERIMENTS["learn"](Learn(seconds=1, seed=3), tools)
    assert tools.folder
    made = load_checkpoint(tools.folder)
    assert made.info["images"] == report.numbers["images"] > 0
    assert made.info["sample"] == learn.SAMPLE
    assert len(report.numbers["losses"]) == len(RunFolder(tools.folder).previews())
    config = dataclasses.replace(
        learn.TRAIN, lr=4e-3, seed=3, images=report.numbers["images"], preview_every=10**9
    )
    data = digits("mnist", 8, 1, True)
    for _ in train(learn.NETWORK, learn.PROCESS, config, data, tmp_path / "again"):
        pass
    again = load_checkpoint(tmp_path / "again").model.state_dict()
    assert all(torch.equal(again[name], w) for name, w in made.model.state_dict().items())


def test_it_is_stopped_and_goes_on_with_another_rate(tools: Tools) -> None:
    assert tools.folder
    with pytest.raises(ValueError, match="There is no run of yours to go on with"):
        list(EXPERIMENTS["learn"](Learn(go_on=True), tools))
    first = until_the_second(tools, Learn(seconds=60))
    sheet, one = next(r.panels for r in first if r.panels)[:2]
    assert isinstance(sheet, Sheet)
    assert isinstance(one, Sheet)
    # A fresh network says v = 0, so x0_hat is sqrt(alpha_bar) x_t.
    clean = digits("mnist", 8, 1, False).batch(torch.tensor([0]))
    schedule, eps = Schedule.from_config(learn.PROCESS), Noise("gaussian", [0]).draw((1, 1, 8, 8))
    x_t = schedule.q_sample(clean, 800, eps)
    wanted = (float(schedule.alpha_bar[800]) ** 0.5 * x_t).clamp(-1, 1)
    assert np.array_equal(one.cells[0][3], convert.to_uint8(x_t))
    assert np.array_equal(one.cells[1][3], convert.to_uint8(wanted))
    rows = RunFolder(tools.folder).rows()
    assert [row["images"] for row in rows] == [160, 320]
    *_, report = EXPERIMENTS["learn"](Learn(seconds=1, lr=1e-4, go_on=True), tools)
    after = RunFolder(tools.folder).rows()
    assert after[:2] == rows
    assert report.numbers["images"] > 320
    assert after[2]["lr"] == pytest.approx(1e-4, rel=0.05)  # the warm-up has still a step to go
    assert report.numbers["losses"][:2] == [row["train"] for row in rows]


def test_time_that_others_take_is_no_training() -> None:
    net = ModelConfig(size=8, channels=1, width=8, multipliers=(1,), attention=(4,), time_dim=16)
    config = dataclasses.replace(learn.TRAIN, batch_size=2, images=8)
    seconds = 0.0
    for at in train(net, learn.PROCESS, config, digits("mnist", 8, 1, True)):
        seconds = at.seconds
        time.sleep(0.7)
    assert seconds < 2.1  # the three sleeps before the last step


def test_what_was_learned_is_kept(tools: Tools) -> None:
    from ddpm_demo.ui.components.controls import ModelChoice
    from ddpm_demo.ui.experiments import handlers

    choice: Any = ModelChoice("name", "own")  # type: ignore[arg-type]
    assert tools.folder
    with pytest.raises(gr.Error, match="no model yet"):
        handlers.keep(choice, {}, str(tools.folder.parent), "learn")
    with pytest.raises(gr.Error, match="no model yet"):
        handlers.keep(choice, {}, str(tools.folder.parent), "race")
    until_the_second(tools, Learn(seconds=60))
    line, own, _ = handlers.keep(choice, {}, str(tools.folder.parent), "learn")
    (title,) = own
    assert title == "digits, 320 pictures (yours)"
    assert title in line
    assert load_checkpoint(own[title]).info["images"] == 320


def test_a_shipped_model_s_log_is_played(zoo: Path) -> None:
    rows = [
        {"images": 100 * k, "seconds": 7 * k, "train": 1 / k, "held_out": None, "loss_by_t": [k, 2]}
        for k in (1, 2, 3)
    ]
    log = RunFolder(zoo / "tiny").log
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    grids = [np.full((16, 8, 8, 1), 60 * k, np.uint8) for k in range(4)]
    sheets = [convert.grid(grid, scale=4) for grid in grids]
    encode.write(RunFolder(zoo / "tiny").film, sheets)
    *_, report = EXPERIMENTS["recorded"](Recorded("tiny"), Tools())
    sheet, losses, by_t = report.panels[:3]
    assert report.numbers["log"] == rows
    assert isinstance(sheet, Sheet)
    assert sheet.rows == ("0 pictures", "100 pictures", "200 pictures", "300 pictures")
    assert [int(np.median(cell)) for (cell,) in sheet.cells] == [0, 60, 120, 180]
    assert isinstance(losses, Plot)
    assert isinstance(by_t, Plot)
    assert by_t.title == "Loss by t"
    with pytest.raises(ValueError, match="Model must be tiny"):
        list(EXPERIMENTS["recorded"](Recorded("classy"), Tools()))


def test_averaged_and_raw_weights_draw_from_the_same_noise(tools: Tools) -> None:
    *_, before = until_the_second(tools, Learn(seconds=60))
    sheet = before.panels[0]
    assert isinstance(sheet, Sheet)
    assert "EMA off" in sheet.rows[1]
    assert tools.folder
    state, _ = load_tensors(RunFolder(tools.folder).state)
    for (cell,), part in zip(sheet.cells, ("ema.", "model."), strict=True):
        net = UNet(learn.NETWORK).eval()
        net.load_state_dict(
            {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        )
        run = SampleConfig(n=16, labels=tuple(range(10)), **learn.SAMPLE)
        *_, end = generate(Checkpoint(net, learn.PROCESS, {}), run)
        assert np.abs(cell.astype(int) - convert.to_uint8(end.x_t)).max() <= 1
