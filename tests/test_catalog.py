"""A sampler is one function and one row: here is one from outside the package."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ddpm_demo import cli, config
from ddpm_demo.config import SAMPLERS, SampleConfig, Sampler
from ddpm_demo.config.samplers import register
from ddpm_demo.diffusion import Move, Moved, Step
from ddpm_demo.diffusion.walk import walk
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.timing import estimate, plan
from ddpm_demo.models.checkpoint import Checkpoint


def straight(denoiser: Any, x_T: Any, timesteps: Any, **way: Any) -> Iterator[Step]:
    """To x0_hat at once, and there it stays."""

    def move(m: Move) -> Moved:
        return Moved(m.see(m.x0, m.s).x0 if m.s else m.x0)

    return walk(denoiser, x_T, timesteps, move, **way)


@pytest.fixture
def outside() -> Iterator[Sampler]:
    row = Sampler("straight", "Straight home", "Goes home.", f"{__name__}:straight", extra_calls=1)
    register(row)
    yield row
    del SAMPLERS["straight"]


def test_it_is_drawn_with(outside: Sampler, tiny: Callable[..., Checkpoint]) -> None:
    run = SampleConfig("straight", 3, n=2)
    steps = list(generate(tiny(), run))
    assert len(steps) == 4
    assert torch.equal(steps[-1].x_t, steps[-2].x0_hat)


def test_it_is_in_help(outside: Sampler, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("sample", "evaluate"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "straight" in capsys.readouterr().out


def test_it_is_in_the_estimate(outside: Sampler) -> None:
    run = SampleConfig("straight", 10, n=1)
    assert estimate(run, {1: 0.1}) == pytest.approx(1.9)
    assert plan(0.5, 100, 1000, run) == run.but(steps=3)


def test_it_is_among_the_app_s_choices(outside: Sampler, zoo: Any) -> None:
    import gradio as gr

    from ddpm_demo.ui.generate.tab import build_generate_tab

    with gr.Blocks() as page:
        build_generate_tab()
    (choice,) = (b for b in page.blocks.values() if b.elem_id == "sampler")
    assert ("Straight home", "straight") in choice.choices


def test_it_is_among_evaluate_s(outside: Sampler) -> None:
    own = SampleConfig()
    assert own.but(sampler="straight").sampler == "straight"
    with pytest.raises(ValueError, match=r"Sampler must be .*straight.*, not 'bent'"):
        own.but(sampler="bent")


def test_the_catalog_needs_no_torch() -> None:
    code = "import sys, ddpm_demo.config.samplers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_rows_say_what_is_true() -> None:
    fields = set(config.SampleConfig.__dataclass_fields__)
    for name, row in SAMPLERS.items():
        assert row.name == name
        assert set(row.options) <= fields
        assert row.does.endswith(".")
        for calls in range(1, 30):
            assert row.calls(row.steps(calls)) <= calls < row.calls(row.steps(calls) + 1)
