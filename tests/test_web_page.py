"""A run as a web page: what its scripts derive, against the run itself."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_demo.cli import main
from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.updates import code, updates
from ddpm_demo.media import convert
from ddpm_demo.media.web_page import PANES, PLAYER, SCRIPTS, joined, run_page
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.ui.components.player import messages

Tiny = Callable[..., Checkpoint]


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="run">(.*?)</script>', page, re.S)
    return json.loads(text)


def page_of(checkpoint: Checkpoint, config: SampleConfig) -> str:
    look = {"title": "</script><b>", "meta": {"seed": "0"}, "updates": updates(checkpoint, config)}
    return run_page(generate(checkpoint, config), look, code(config.sampler))


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js runs the page's scripts")
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "unipc"])
def test_what_is_derived_is_the_run(tiny: Tiny, tmp_path: Path, sampler: str) -> None:
    checkpoint = tiny(T=200)
    config = SampleConfig(sampler=sampler, steps=12, n=4)
    data = data_of(page_of(checkpoint, config))
    (tmp_path / "data.json").write_text(json.dumps(data))
    script = f"""{joined()}
    const data = JSON.parse(require("fs").readFileSync({str(tmp_path / "data.json")!r}));
    console.log(JSON.stringify(unpack(data).frames));"""
    (tmp_path / "run.cjs").write_text(script)
    done = subprocess.run(["node", tmp_path / "run.cjs"], capture_output=True, check=True)
    frames, steps = json.loads(done.stdout), list(generate(checkpoint, config))
    assert [frame["t"] for frame in frames] == [step.t for step in steps]
    noisy = 0
    for k, (frame, step) in enumerate(zip(frames, steps, strict=True)):
        shape = (3, 4, 8, 8, 1)
        x_t, x0_hat, _ = np.frombuffer(base64.b64decode(frame["d"]), np.uint8).reshape(shape)
        assert np.array_equal(x0_hat, convert.to_uint8(step.x0_hat))
        off = np.abs(x_t.astype(int) - convert.to_uint8(step.x_t))
        inside = np.abs(step.eps_hat.permute(0, 2, 3, 1).numpy()) < 3  # what the file can hold
        assert off[inside].max() <= 2
        added = [term for term in step.line if term.name == "z" and term.coefficient]
        if added:  # it is in the frame from which the step began
            z = np.frombuffer(base64.b64decode(frames[k - 1]["z"]), np.uint8).reshape(shape[1:])
            off = np.abs(z.astype(int) - convert.to_uint8(added[0].coefficient * added[0].tensor))
            noisy += 1
            assert np.median(off) <= 2
    assert noisy == (11 if sampler == "ddpm" else 0)


def test_a_page_needs_nothing_else_and_a_title_is_text(tiny: Tiny) -> None:
    page = page_of(tiny(), SampleConfig(steps=3, n=1))
    assert "</script><b>" not in page
    assert data_of(page)["run"]["title"] == "</script><b>"
    elsewhere = r"""(?:src|href)=|@import [^{]|url\((?!\$)|https?://(?!www\.w3\.org)"""
    assert not re.findall(elsewhere, page)


def test_a_page_of_16_colour_pictures_in_20_steps_has_at_most_4_mb(tiny: Tiny) -> None:
    page = page_of(tiny(size=32, channels=3), SampleConfig(steps=20, n=16))
    assert len(page.encode()) < 4e6


def test_the_panes_have_the_names_that_the_player_has() -> None:
    assert PANES == messages.PANES
    assert {path.name for path in PLAYER.glob("*.js")} == set(SCRIPTS) - {"../compare/compare.js"}


def test_the_command_writes_one(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    assert main(["sample", "--model", "tiny", "--steps", "3", "-n", "2", "--out", str(out)]) == 0
    data = data_of(out.read_text(encoding="utf-8"))
    assert [frame["t"] for frame in data["frames"]][-1] == 0
    assert data["run"]["meta"]["model"] == "tiny"
    assert data["code"]["text"].startswith(("def", "@"))
