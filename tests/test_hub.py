"""diffusers is the oracle: folders that it writes give its predictions and its pictures in ours."""

import html
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    UNet2DModel,
)
from diffusers.utils import logging
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from ddpm_demo import hub
from ddpm_demo.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from ddpm_demo.cli import main
from ddpm_demo.config import SampleConfig
from ddpm_demo.generate import generate
from ddpm_demo.noise import Noise
from ddpm_demo.ui import hub as ui_hub
from ddpm_demo.ui import runtime
from ddpm_demo.ui.generate import ModelChoice

try:  # by the version of huggingface-hub
    import httpx2 as http
except ImportError:
    import httpx as http

logging.set_verbosity_error()
logging.disable_progress_bar()

PUBLISHED = {  # what the first published DDPMs say, at small widths
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "downsample_padding": 0,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def blocks(attention: str) -> dict[str, Any]:
    """Block types by level: "-A" is attention at the second of two."""
    return {
        "down_block_types": ["Attn" * (a == "A") + "DownBlock2D" for a in attention],
        "up_block_types": ["Attn" * (a == "A") + "UpBlock2D" for a in attention[::-1]],
    }


UNETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cifar10": PUBLISHED
    | blocks("-A--")
    | {"sample_size": 32, "block_out_channels": (8, 16, 16, 16), "layers_per_block": 2},
    "256 px": PUBLISHED
    | blocks("----A-")
    | {"sample_size": 32, "block_out_channels": (8, 8, 16, 16, 32, 32), "layers_per_block": 2},
    "five levels": blocks("--AA-") | {"sample_size": 16, "block_out_channels": (8, 8, 8, 16, 16)},
    "one level": blocks("A") | {"block_out_channels": (16,)},
    "attention first": blocks("A-") | {"attention_head_dim": 4},
    "one head": {"attention_head_dim": None},
    "many heads": {"attention_head_dim": 2},
    "no middle attention": {"add_attention": False},
    "no attention": blocks("--") | {"add_attention": False},
    "widths without a common multiple": {"block_out_channels": (16, 24)},
    "sines first": {"flip_sin_to_cos": False, "freq_shift": 1},
    "padding 0": {"downsample_padding": 0},
    "resnets resample": blocks("-A-")
    | {"block_out_channels": (8, 8, 16), "downsample_type": "resnet", "upsample_type": "resnet"},
    "resnets downsample": blocks("A-") | {"downsample_type": "resnet"},
    "resnets upsample": {"upsample_type": "resnet"},
    "grey": {"in_channels": 1, "out_channels": 1},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "norm of the middle": {"attn_norm_num_groups": 4},
    "own time width": {"time_embedding_dim": 24},
    "swish": {"act_fn": "swish", "dropout": 0.3},
}


@pytest.fixture
def unet(filled: Callable[..., UNet2DModel]) -> Callable[..., UNet2DModel]:
    return lambda **changes: filled(UNet2DModel(**(TINY | changes)))


@pytest.fixture
def folder(tmp_path: Path, unet: Callable[..., UNet2DModel]) -> Path:
    """A tiny pipeline's folder."""
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
def prediction_error(ours: Checkpoint, theirs: UNet2DModel) -> float:
    """The largest difference between two networks on noise at several t, in theirs' deviations."""
    c = ours.model.config
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, c.channels, c.size, c.size, generator=g)
    t = torch.tensor([0, 7, 999])
    expected = theirs.eval()(x, t).sample
    assert expected.std() > 0.1  # not a network of zeros
    return error(ours.model(x, t), expected) / max(1.0, float(expected.std()))


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNETS)
def test_same_predictions(name: str, tmp_path: Path, unet: Callable[..., UNet2DModel]) -> None:
    theirs = unet(**UNETS[name])
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path / "new")
    ours = load_checkpoint(tmp_path / "new")
    assert ours.name == "new"
    assert not ours.model.training
    assert prediction_error(ours, theirs) <= 1e-5


def test_defaults_of_keys_that_are_not_there(
    folder: Path, unet: Callable[..., UNet2DModel]
) -> None:
    """Old files say little; diffusers' defaults then count, whatever ours are."""
    path = folder / "unet" / "config.json"
    whole = json.loads(path.read_text())
    kept = {"_class_name", *TINY}
    path.write_text(json.dumps({k: v for k, v in whole.items() if k in kept}))
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    ours = load_checkpoint(folder)
    assert prediction_error(ours, unet()) <= 1e-5
    assert (ours.diffusion.T, ours.diffusion.beta_end) == (1000, 0.02)
    assert ours.info["sample"] == {"spacing": "leading", "clip": True, "variance": "beta_tilde"}


def test_default_levels() -> None:
    """With no levels given, they are UNet2DModel's."""
    with torch.device("meta"):
        theirs = dict(UNet2DModel(sample_size=32).config)
    levels = ("block_out_channels", "down_block_types", "up_block_types")
    said = {k: list(v) if k in levels else v for k, v in theirs.items()}
    said["_class_name"] = "UNet2DModel"
    bare = {"_class_name": "UNet2DModel", "sample_size": 32}
    assert hub._model_config(bare) == hub._model_config(said)


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
def test_layout_of_the_first_published(
    kind: str, tmp_path: Path, unet: Callable[..., UNet2DModel]
) -> None:
    """All in one folder, with the old names of attention's parameters."""
    theirs = unet(**PUBLISHED)
    state = {}
    for key, value in theirs.state_dict().items():
        for new, old in OLD.items():
            key = key.replace(f".{new}.", f".{old}.")
        state[key] = value
    assert any(".proj_attn." in key for key in state)
    if kind == "safetensors":
        save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    else:
        path = tmp_path / "diffusion_pytorch_model.bin"
        torch.save(state, path, _use_new_zipfile_serialization=kind == "bin")
    theirs.save_config(tmp_path)
    DDPMScheduler(variance_type="fixed_large").save_config(tmp_path)
    change(tmp_path / "scheduler_config.json", tensor_format="pt")
    for index in (True, False):
        if index:
            (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
        else:
            (tmp_path / "model_index.json").unlink()
        assert prediction_error(load_checkpoint(tmp_path), theirs) <= 1e-5


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shards", ["1GB", "9KB"])
def test_weights_in_shards(
    safe: bool, shards: str, tmp_path: Path, unet: Callable[..., UNet2DModel]
) -> None:
    theirs = unet()
    new = tmp_path / "new"
    theirs.save_pretrained(new / "unet", max_shard_size=shards, safe_serialization=safe)
    DDPMScheduler().save_pretrained(new / "scheduler")
    (new / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    files = [p for p in (new / "unet").iterdir() if "-of-" in p.name]
    assert (len(files) > 1) == (shards == "9KB")
    assert prediction_error(load_checkpoint(new), theirs) <= 1e-5
    if files:
        files[0].unlink()
        with pytest.raises(hub.HubError, match="no whole diffusion_pytorch_model"):
            load_checkpoint(new)


def test_half_precision_weights(folder: Path, unet: Callable[..., UNet2DModel]) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file)
    ours = load_checkpoint(folder)
    assert {p.dtype for p in ours.model.parameters()} == {torch.float32}
    assert 1e-5 < prediction_error(ours, unet()) < 1e-2


def test_safetensors_before_bin(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never looked at")
    assert load_checkpoint(folder).model


# ---- trajectories -------------------------------------------------------------------------------


def theirs_and_ours(
    pipeline: Any, ours: Checkpoint, monkeypatch: pytest.MonkeyPatch, **run: Any
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """x_t after every step of both, from the noise of seeds 5 and 6.

    `run` is of a `SampleConfig`, where it isn't said by the model.
    """
    config = SampleConfig(**({"n": 2, "seed": 5, "steps": 50} | ours.info["sample"] | run))
    noise, seen, step = Noise("gaussian", (5, 6)), [], pipeline.scheduler.step

    def kept(*args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        seen.append(result.prev_sample)
        return result

    for name in ("ddpm", "ddim"):
        for module in (f"pipelines.{name}.pipeline_{name}", f"schedulers.scheduling_{name}"):
            draw = f"diffusers.{module}.randn_tensor"
            monkeypatch.setattr(draw, lambda shape, **_options: noise.draw(shape))
    monkeypatch.setattr(pipeline.scheduler, "step", kept)
    pipeline.set_progress_bar_config(disable=True)
    # Our denoiser derives eps from the clipped picture, which is that option of diffusers' DDIM.
    ddim = {"eta": config.eta, "use_clipped_model_output": True}
    options = ddim if config.sampler == "ddim" else {}
    pipeline(2, num_inference_steps=config.steps, output_type="pt", **options)

    _, *steps = generate(ours, config)
    assert len(steps) == len(seen) == config.steps
    return zip(seen, (step.x_t for step in steps), strict=True)


DDPM: list[dict[str, Any]] = [
    {},
    {"variance_type": "fixed_large", "beta_schedule": "scaled_linear", "beta_start": 0.001},
    {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "sample", "timestep_spacing": "trailing", "steps_offset": 7},
    {"timestep_spacing": "linspace", "variance_type": "fixed_small_log", "beta_end": 0.03},
    {"num_train_timesteps": 300, "clip_sample": False, "prediction_type": "sample"},
]


@pytest.mark.parametrize("settings", DDPM, ids=str)
def test_same_steps_as_the_ddpm_pipeline(
    settings: dict[str, Any],
    tmp_path: Path,
    unet: Callable[..., UNet2DModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = DDPMPipeline(unet(**PUBLISHED), DDPMScheduler(**settings))
    pipeline.save_pretrained(tmp_path / "new")
    ours = load_checkpoint(tmp_path / "new")
    for theirs, x_t in theirs_and_ours(pipeline, ours, monkeypatch, sampler="ddpm"):
        assert error(x_t, theirs) <= 1e-4


def test_middle_of_an_odd_linspace(
    tmp_path: Path, unet: Callable[..., UNet2DModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 499.5 in the middle of 0 to 999 is rounded as diffusers rounds it."""
    pipeline = DDPMPipeline(unet(), DDPMScheduler(timestep_spacing="linspace"))
    pipeline.save_pretrained(tmp_path / "new")
    ours = load_checkpoint(tmp_path / "new")
    for theirs, x_t in theirs_and_ours(pipeline, ours, monkeypatch, sampler="ddpm", steps=5):
        assert error(x_t, theirs) <= 1e-4


DDIM: list[tuple[float, dict[str, Any]]] = [
    (0.0, {}),
    (0.6, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
    (0.0, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}),
    (1.0, {"clip_sample": False, "prediction_type": "v_prediction"}),
]


@pytest.mark.parametrize(("eta", "settings"), DDIM, ids=str)
def test_same_steps_as_the_ddim_pipeline(
    settings: dict[str, Any],
    eta: float,
    tmp_path: Path,
    unet: Callable[..., UNet2DModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = DDIMPipeline(unet(**PUBLISHED), DDIMScheduler(**settings))
    pipeline.save_pretrained(tmp_path / "new")
    ours = load_checkpoint(tmp_path / "new")
    for theirs, x_t in theirs_and_ours(pipeline, ours, monkeypatch, sampler="ddim", eta=eta):
        assert error(x_t, theirs) <= 1e-4


# ---- export -------------------------------------------------------------------------------------

EXPORTS: dict[str, dict[str, Any]] = {
    "paper": {"scale_shift": False, "time_dim": None, "freq_shift": 1, "down_padding": 0},
    "lean": {"time_dim": 24},
    "no middle attention": {"mid_attention": False, "attention": ()},
    "heads, resnets": {"head_dim": 4, "downsample": "resnet", "upsample": "resnet"},
    "deep": {"multipliers": (1, 1, 2, 2), "attention": (4, 1), "blocks": 2, "channels": 3},
    "cosines first": {"flip_sin_to_cos": True, "norm_eps": 1e-5, "predict": "v"},
    "classes": {"num_classes": 3, "predict": "x0"},
    "linear": {"schedule": "linear", "T": 1000},
}


@pytest.mark.parametrize("name", EXPORTS)
def test_export_runs_in_diffusers(
    name: str,
    tmp_path: Path,
    tiny: Callable[..., Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = tiny(**({"norm": "group", "groups": 4, "T": 100} | EXPORTS[name]))
    made = hub.export_diffusers(ours, tmp_path / "deep" / "new")
    assert os.listdir(tmp_path / "deep") == ["new"]
    assert (made.stat().st_mode & 0o777) == (tmp_path / "deep").stat().st_mode & 0o777
    pipeline = DDPMPipeline.from_pretrained(made)
    ours.info["sample"] = {}  # what our models are sampled with by default
    for theirs, x_t in theirs_and_ours(pipeline, ours, monkeypatch, sampler="ddpm", steps=20):
        assert error(x_t, theirs) <= 1e-4

    again = load_checkpoint(made)
    assert again.diffusion == ours.diffusion
    assert again.info["sample"] == {"spacing": "trailing", "clip": True, "variance": "beta_tilde"}
    x, t = torch.randn(2, ours.model.config.channels, 8, 8), torch.tensor([3, 90])
    with torch.no_grad():
        assert error(again.model(x, t), ours.model(x, t)) <= 1e-6


def test_export_keeps_the_sampling_choices(tmp_path: Path, tiny: Callable[..., Checkpoint]) -> None:
    ours = tiny(norm="group", groups=4)
    ours.info["sample"] = {"spacing": "uniform", "clip": False, "variance": "beta"}
    made = hub.export_diffusers(ours, tmp_path / "new")
    assert load_checkpoint(made).info["sample"] == ours.info["sample"]
    scheduler = DDPMPipeline.from_pretrained(made).scheduler.config
    assert (scheduler.timestep_spacing, scheduler.clip_sample) == ("linspace", False)
    assert scheduler.variance_type == "fixed_large"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"noise": "laplace"}, "noise is 'laplace'"),
        ({"size": 9}, "size is 9; allowed is a multiple of 2"),
    ],
)
def test_export_refuses(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny: Callable[..., Checkpoint]
) -> None:
    with pytest.raises(ValueError, match=message):
        hub.export_diffusers(tiny(**({"norm": "group", "groups": 4} | changes)), tmp_path / "new")
    assert not any(tmp_path.iterdir())


def test_export_never_writes_over(tmp_path: Path, tiny: Callable[..., Checkpoint]) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(ValueError, match=r"kept.*one that isn't there yet"):
        hub.export_diffusers(tiny(norm="group", groups=4), tmp_path / "kept")


def test_export_leaves_nothing_when_it_fails(
    tmp_path: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        hub.export_diffusers(tiny(norm="group", groups=4), tmp_path / "new")
    assert not any(tmp_path.iterdir())


def test_export_from_the_command_line(
    tmp_path: Path,
    tiny: Callable[..., Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_checkpoint(
        tmp_path / "run", tiny(norm="group", groups=4, blocks=2, T=100, **EXPORTS["paper"])
    )
    new = tmp_path / "new"
    assert main(["export", str(tmp_path / "run"), str(new)]) == 0
    assert capsys.readouterr().out == f"{new}\n"
    ours = load_checkpoint(tmp_path / "run")
    ours.info["sample"] = {}
    pipeline = DDPMPipeline.from_pretrained(new)
    for theirs, x_t in theirs_and_ours(pipeline, ours, monkeypatch, sampler="ddpm", steps=20):
        assert error(x_t, theirs) <= 1e-4

    save_checkpoint(tmp_path / "lean", tiny())
    assert main(["export", str(tmp_path / "lean"), str(tmp_path / "other")]) == 2
    said = capsys.readouterr()
    assert "norm is 'layer'; allowed is 'group', as diffusers has no other." in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "other").exists()


# ---- refusals -----------------------------------------------------------------------------------

REFUSED_UNET: list[tuple[dict[str, Any], str]] = [
    ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
    ({"down_block_types": ["SkipDownBlock2D"] * 2}, "down_block_types is 'SkipDownBlock2D'"),
    ({"up_block_types": ["UpBlock2D", "SkipUpBlock2D"]}, "up_block_types is 'SkipUpBlock2D'"),
    (blocks("-A") | {"up_block_types": ["UpBlock2D"] * 2}, "up_block_types is .* same levels"),
    ({"down_block_types": ["DownBlock2D"]}, "down_block_types is .* a list of 2"),
    ({"down_block_types": None}, "down_block_types is None"),
    ({"center_input_sample": True}, "center_input_sample is True"),
    ({"mid_block_scale_factor": 1.4142}, "mid_block_scale_factor is 1.4142"),
    ({"mid_block_type": None}, "mid_block_type is None"),
    ({"act_fn": "gelu"}, "act_fn is 'gelu'; allowed is 'silu' or 'swish'"),
    ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
    ({"num_class_embeds": 10}, "num_class_embeds is 10; allowed is None"),
    ({"attn_norm_num_groups": 2}, "attn_norm_num_groups is 2; allowed is None or 4"),
    ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is None; allowed is 4"),
    ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift is 'ada_group'"),
    ({"norm_num_groups": 3}, "norm_num_groups is 3; allowed is a divisor"),
    ({"norm_num_groups": None}, "norm_num_groups is None"),
    ({"norm_num_groups": 0}, "norm_num_groups is 0"),
    ({"norm_num_groups": 4.0}, "norm_num_groups is 4.0; allowed is a value like 32"),
    ({"norm_eps": float("inf")}, "norm_eps is inf"),
    ({"attention_head_dim": 5}, "attention_head_dim is 5; allowed is a divisor"),
    ({"attention_head_dim": "8"}, "attention_head_dim is '8'"),
    ({"add_attention": "yes"}, "add_attention is 'yes'"),
    ({"freq_shift": 4}, "freq_shift is 4"),
    ({"time_embedding_dim": 10**9}, "time_embedding_dim is 1000000000"),
    ({"downsample_type": "fir"}, "downsample_type is 'fir'"),
    ({"upsample_type": "fir"}, "upsample_type is 'fir'"),
    ({"downsample_padding": 2}, "downsample_padding is 2"),
    ({"in_channels": 4, "out_channels": 4}, "in_channels is 4; allowed is 1 or 3"),
    ({"out_channels": 6}, "out_channels is 6; allowed is 3"),
    ({"sample_size": None}, "sample_size is None"),
    ({"sample_size": [8, 16]}, "sample_size is .8, 16."),
    ({"sample_size": 10**9}, "sample_size is 1000000000"),
    ({"block_out_channels": [10**9, 10**9]}, "block_out_channels is .1000000000, 1000000000."),
    ({"block_out_channels": [1e9, 1e9]}, "block_out_channels is .1000000000.0"),
    ({"block_out_channels": [2048, 2048]}, "block_out_channels is .2048.* 8 to 1,024"),
    ({"block_out_channels": [8, 136]}, "block_out_channels is .8, 136.; allowed is 1 to 16 times"),
    ({"block_out_channels": [-8, 8]}, "block_out_channels is .-8, 8.; .* above 0"),
    ({"block_out_channels": [8] * 10**6}, "block_out_channels is .8, 8, 8, 8, 8, 8, [.]{3}"),
    ({"block_out_channels": [8, 9]}, "block_out_channels is .8, 9.; .* 8 to 1,024"),
    ({"block_out_channels": "wide"}, "block_out_channels is 'wide'"),
    ({"layers_per_block": 10**9}, "layers_per_block is 1000000000"),
    ({"dropout": "none"}, "dropout is 'none'"),
    ({"gated": [1]}, "gated is .1.; allowed is nothing, as the key is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_UNET, ids=[m for _, m in REFUSED_UNET])
def test_refused_networks(changes: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(hub.HubError, match=f"tiny can't be used: {message}") as raised:
        load_checkpoint(folder)
    assert len(str(raised.value)) <= 400
    assert "\n" not in str(raised.value)


def test_attention_at_one_of_two_levels_of_one_pixel(folder: Path) -> None:
    changes = blocks("----A") | {"block_out_channels": [8] * 5}
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(hub.HubError, match=r"down_block_types .* 1 × 1 pixel"):
        load_checkpoint(folder)


def test_ignored_keys(folder: Path) -> None:
    extra = {"_name_or_path": "somewhere", "new_and_off": False, "num_train_timesteps": 1000}
    change(folder / "unet" / "config.json", sample_size=[8, 8], **extra)
    change(folder / "scheduler" / "scheduler_config.json", tensor_format="np", steps_offset=0)
    assert load_checkpoint(folder).model.config.size == 8


REFUSED_SCHEDULER: list[tuple[dict[str, Any], str]] = [
    ({"_class_name": "ScoreSdeVeScheduler"}, "_class_name is 'ScoreSdeVeScheduler'"),
    ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; allowed is 'linear' or"),
    ({"beta_schedule": ["linear"]}, "beta_schedule is .'linear'."),
    ({"trained_betas": [0.1] * 1000}, "trained_betas is .0.1, 0.1"),
    ({"variance_type": "learned_range"}, "variance_type is 'learned_range'"),
    ({"variance_type": "fixed_large_log"}, "variance_type is 'fixed_large_log'"),
    ({"prediction_type": "flow"}, "prediction_type is 'flow'"),
    ({"thresholding": True}, "thresholding is True"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
    ({"clip_sample_range": 2.0}, "clip_sample_range is 2.0"),
    ({"clip_sample": "often"}, "clip_sample is 'often'"),
    ({"steps_offset": 1}, "steps_offset is 1"),
    ({"timestep_spacing": "log"}, "timestep_spacing is 'log'"),
    ({"num_train_timesteps": 10**9}, "num_train_timesteps is 1000000000"),
    ({"beta_end": 2}, "beta_end is 2"),
    ({"beta_start": "small"}, "beta_start is 'small'"),
    ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, "set_alpha_to_one is False"),
]


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED_SCHEDULER, ids=[m for _, m in REFUSED_SCHEDULER]
)
def test_refused_processes(changes: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(hub.HubError, match=f"tiny can't be used: {message}"):
        load_checkpoint(folder)


def test_choices_that_say_nothing(folder: Path) -> None:
    """A range without clipping, an offset without leading spacing, another scheduler's key."""
    about = {"clip_sample": False, "clip_sample_range": 2.0, "set_alpha_to_one": False}
    about |= {"timestep_spacing": "trailing", "steps_offset": 1}
    change(folder / "scheduler" / "scheduler_config.json", **about)
    expected = {"spacing": "trailing", "clip": False, "variance": "beta_tilde"}
    assert load_checkpoint(folder).info["sample"] == expected


def test_cosine_ignores_the_ends(folder: Path) -> None:
    about = {"beta_schedule": "squaredcos_cap_v2", "beta_start": 7, "beta_end": None}
    change(folder / "scheduler" / "scheduler_config.json", **about)
    assert load_checkpoint(folder).diffusion.schedule == "cosine"


def test_other_pipelines_and_missing_files(folder: Path) -> None:
    change(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    with pytest.raises(hub.HubError, match="_class_name is 'StableDiffusionPipeline'"):
        load_checkpoint(folder)
    change(folder / "model_index.json", _class_name="DDIMPipeline")
    assert load_checkpoint(folder)
    for text in ("{", "[]", "[" * 100_000, "\x00"):
        (folder / "unet" / "config.json").write_text(text)
        with pytest.raises(hub.HubError, match=r"config.json is not a JSON object"):
            load_checkpoint(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(hub.HubError, match=r"unet/config.json is missing"):
        load_checkpoint(folder)


def test_missing_scheduler_and_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(hub.HubError, match="tiny has no whole diffusion_pytorch_model"):
        load_checkpoint(folder)
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(hub.HubError, match=r"scheduler/scheduler_config.json is missing"):
        load_checkpoint(folder)


# ---- weights that don't fit, or do harm ---------------------------------------------------------


def test_strict_parameters(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    bias = "conv_in.bias"
    for changed, message in (
        ({k: v for k, v in state.items() if k != bias}, "conv_in.bias is missing"),
        (state | {"extra.bias": torch.zeros(8)}, "extra.bias is unknown"),
        (state | {bias: torch.zeros(9)}, r"conv_in.bias is \(9,\), not \(8,\)"),
        (state | {bias: torch.full((8,), torch.nan)}, "conv_in.bias holds NaN"),
    ):
        save_file(changed, file)
        with pytest.raises(CheckpointError, match=f"tiny don't fit: {message}"):
            load_checkpoint(folder)


class Malice:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def bin_file(folder: Path) -> Path:
    """Where the weights go as a pickle."""
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    return folder / "unet" / "diffusion_pytorch_model.bin"


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickles_are_refused(zipped: bool, tmp_path: Path, bin_file: Path) -> None:
    state = {"conv_in.bias": Malice(tmp_path / "harm")}
    torch.save(state, bin_file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(hub.HubError, match="nothing of it was run") as raised:
        load_checkpoint(bin_file.parent.parent)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "harm").exists()
    torch.load(bin_file, weights_only=False)  # it would have done harm
    assert (tmp_path / "harm").exists()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_pickles_of_other_things(bin_file: Path, unet: Callable[..., UNet2DModel]) -> None:
    state = unet().state_dict()
    whole = torch.zeros(2)
    for other in (
        [whole],
        {"state_dict": state},
        {1: whole},
        {"conv_in.bias": whole.to_sparse()},
        {"conv_in.bias": whole.to("meta")},
        {"conv_in.bias": whole.to(torch.float8_e4m3fn)},
        {"conv_in.bias": whole.long()},
    ):
        torch.save(other, bin_file)
        with pytest.raises(hub.HubError, match="not a table of names and floating-point tensors"):
            load_checkpoint(bin_file.parent.parent)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_half_downloaded(
    kind: str, part: float, bin_file: Path, unet: Callable[..., UNet2DModel]
) -> None:
    unet().save_pretrained(bin_file.parent, safe_serialization=kind == "safetensors")
    file = bin_file.with_suffix(f".{kind}")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(hub.HubError, match=r"is not a whole file of weights|is broken") as raised:
        load_checkpoint(bin_file.parent.parent)
    assert file.name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_page_instead_of_weights(bin_file: Path) -> None:
    bin_file.write_text("<html>Not found</html>")
    with pytest.raises(hub.HubError, match="is broken or holds more than weights"):
        load_checkpoint(bin_file.parent.parent)


# ---- the Hub ------------------------------------------------------------------------------------

NAME = "somebody/tiny"
Fail = Callable[[], Exception]


def answer(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    request = http.Request("GET", "https://huggingface.co")
    return kind(f"{status} Client Error.\n\nMore.", response=http.Response(status, request=request))


class FakeHub:
    """Serves one folder as a repo into a cache, and keeps a record of what was asked for."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache = source, cache
        self.fetched: list[str] = []
        self.asked = 0
        self.info_error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.tags = ["diffusers", "license:apache-2.0"]
        self.bars: list[Any] = []
        self.cut: dict[str, int] = {}

    def model_info(self, repo_id: str, *, files_metadata: bool, timeout: float) -> Any:
        self.asked += 1
        assert files_metadata
        if self.info_error:
            raise self.info_error
        files = [p for p in self.source.rglob("*") if p.is_file()]
        siblings = [
            SimpleNamespace(rfilename=str(p.relative_to(self.source)), size=p.stat().st_size)
            for p in files
        ]
        return SimpleNamespace(siblings=siblings, tags=self.tags, downloads=12_345)

    def snapshot_download(
        self,
        repo_id: str,
        *,
        allow_patterns: list[str],
        local_files_only: bool = False,
        tqdm_class: Any = None,
    ) -> str:
        if local_files_only:
            if not self.cache.exists():
                raise errors.LocalEntryNotFoundError("Cannot find\na snapshot.")
            return str(self.cache)
        if self.fetch_error:
            raise self.fetch_error
        self.bars.append(tqdm_class)
        for name in allow_patterns:
            (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
            data = (self.source / name).read_bytes()[: self.cut.get(name)]
            (self.cache / name).write_bytes(data)
            self.fetched.append(name)
        return str(self.cache)


@pytest.fixture
def fake(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    (folder / "README.md").write_text("# a model")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"0" * 10**6)
    made = FakeHub(folder, tmp_path / "cache")
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot_download)
    ui_hub.describe.cache_clear()
    monkeypatch.chdir(tmp_path)
    return made


CONFIGS = ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_download(fake: FakeHub, unet: Callable[..., UNet2DModel]) -> None:
    ours = load_checkpoint(NAME)
    assert ours.name == NAME
    assert prediction_error(ours, unet()) <= 1e-5
    assert set(fake.fetched) == {*CONFIGS, WEIGHTS}  # no README, no second format
    assert fake.fetched.index(WEIGHTS) >= len(CONFIGS)  # after the configurations were read

    fake.info_error = fake.fetch_error = http.ConnectError("no network")
    before = fake.asked
    assert load_checkpoint(NAME).name == NAME  # what is cached works offline
    assert fake.asked == before
    assert hub.cached(NAME) == fake.cache


def test_download_of_the_flat_layout(fake: FakeHub) -> None:
    for path in ("unet/config.json", "scheduler/scheduler_config.json"):
        (fake.source / path).rename(fake.source / Path(path).name)
    weights = "diffusion_pytorch_model.safetensors"
    (fake.source / "unet" / weights).rename(fake.source / weights)
    assert load_checkpoint(NAME)
    flat = {"model_index.json", "config.json", "scheduler_config.json", weights}
    assert set(fake.fetched) == flat


def test_describe(fake: FakeHub) -> None:
    about = hub.describe(NAME)
    sizes = {name: (fake.source / name).stat().st_size for name in (*CONFIGS, WEIGHTS)}
    assert about.files == sizes
    assert about.size == sum(sizes.values())
    assert (about.licence, about.downloads) == ("apache-2.0", 12_345)
    assert str(hub.RepoInfo(NAME, {"a": 142_985_228}, "mit", 12_345)) == (
        "somebody/tiny: 143 MB, licence mit, 12,345 downloads"
    )
    fake.tags = []
    assert "no licence stated" in str(hub.describe(NAME))
    assert fake.fetched == []


def test_limit(fake: FakeHub) -> None:
    size = hub.describe(NAME).size
    with pytest.raises(hub.HubError, match=r"tiny has 0 MB; the limit is 0 MB"):
        hub.download(NAME, most=size - 1)
    assert WEIGHTS not in fake.fetched
    assert hub.cached(NAME) is None
    assert hub.download(NAME, most=size) == fake.cache


def test_limit_is_2_gb(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    big = hub.RepoInfo(NAME, dict.fromkeys(CONFIGS, 1) | {WEIGHTS: 2 * 10**9}, None, 0)
    monkeypatch.setattr(hub, "describe", lambda _name: big)
    with pytest.raises(hub.HubError, match="has 2,000 MB; the limit is 2,000 MB"):
        hub.download(NAME)
    assert WEIGHTS not in fake.fetched
    monkeypatch.setenv("DDPM_DEMO_HUB_MB", "2000.1")
    assert hub.limit() == 2000.1e6
    with pytest.raises(hub.HubError, match="came without the whole"):  # the limit let it pass
        hub.download(NAME)
    for words in ("many", "-1", "nan"):
        monkeypatch.setenv("DDPM_DEMO_HUB_MB", words)
        with pytest.raises(hub.HubError, match=f"DDPM_DEMO_HUB_MB is '{words}'; allowed is a num"):
            hub.limit()


def test_bars(fake: FakeHub) -> None:
    class Bar:
        pass

    hub.download(NAME, tqdm_class=Bar)  # type: ignore[arg-type]
    assert fake.bars == [hub.Silent, Bar]


def test_a_config_that_cannot_be_used_costs_no_weights(fake: FakeHub) -> None:
    change(fake.source / "unet" / "config.json", block_out_channels=[10**9, 10**9])
    with pytest.raises(hub.HubError, match="somebody/tiny can't be used: block_out_channels is"):
        load_checkpoint(NAME)
    change(fake.source / "model_index.json", _class_name="LDMPipeline")
    with pytest.raises(hub.HubError, match="_class_name is 'LDMPipeline'"):
        load_checkpoint(NAME)
    assert WEIGHTS not in fake.fetched


def test_repos_without_a_model(fake: FakeHub) -> None:
    for path in (fake.source / "unet").glob("diffusion*"):
        path.unlink()
    with pytest.raises(hub.HubError, match="somebody/tiny is no unconditional diffusion model"):
        load_checkpoint(NAME)


def network(kind: str) -> Exception:
    return {
        "missing": lambda: answer(errors.RepositoryNotFoundError, 404),
        "gated": lambda: answer(errors.GatedRepoError, 403),
        "disabled": lambda: answer(errors.DisabledRepoError, 403),
        "down": lambda: answer(errors.HfHubHTTPError, 503),
        "offline": lambda: errors.OfflineModeIsEnabled("Offline mode\nis on."),
        "unreachable": lambda: http.ConnectError("Name or service not known\nreally"),
        "slow": lambda: http.ReadTimeout("The read operation timed out"),
        "full": lambda: OSError(28, "No space left on device"),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no somebody/tiny on this disk or on the Hub, or it is private"),
        ("gated", "somebody/tiny is gated: ask for access"),
        ("disabled", "not on this disk and can't be downloaded .DisabledRepoError: 403"),
        ("down", "not on this disk and can't be downloaded .HfHubHTTPError: 503"),
        ("offline", "somebody/tiny is not on this disk, and HF_HUB_OFFLINE forbids"),
        ("unreachable", "can't be downloaded .ConnectError: Name or service not known"),
        ("slow", "can't be downloaded .ReadTimeout: The read operation timed out"),
        ("full", "can't be downloaded .OSError: .Errno 28. No space left on device"),
    ],
)
@pytest.mark.parametrize("when", ["asked", "downloaded"])
def test_answers_in_one_sentence(when: str, kind: str, message: str, fake: FakeHub) -> None:
    setattr(fake, "info_error" if when == "asked" else "fetch_error", network(kind))
    with pytest.raises(hub.HubError, match=message) as raised:
        load_checkpoint(NAME)
    assert "\n" not in str(raised.value)
    assert fake.fetched == []


@pytest.mark.parametrize("name", ["a--b/c", "a/b--c", "a/b."])
def test_names_that_no_repo_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(hub.HubError, match=r"is not the name of a repo; one is like google/ddpm"):
        load_checkpoint(name)


@pytest.mark.parametrize("name", [CONFIGS[1], WEIGHTS])
def test_a_download_that_comes_cut(name: str, fake: FakeHub) -> None:
    fake.cut[name] = 100
    with pytest.raises(hub.HubError, match=f"came without the whole of {name}"):
        load_checkpoint(NAME)


def test_what_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "theirs").mkdir()
    (tmp_path / "runs" / "theirs" / "config.json").write_text("{}")
    assert all(hub.is_published(name) for name in (*hub.LISTED, "runs/theirs", "some-one/m.v1"))
    ours = ("mnist", "runs/mine", "runs/model.safetensors", "./runs/x", "a/b/c", "/etc/x", "~/x")
    assert not any(hub.is_published(name) for name in ours)
    with pytest.raises(CheckpointError, match="There is no model 'nowhere'"):
        load_checkpoint("nowhere")


def test_shipped_models_come_first(
    zoo: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tiny` here is a shipped model and a folder of the working directory."""
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("tiny").info["dataset"] == "none"
    assert "sample" in load_checkpoint("./tiny").info


# ---- the app's entry ----------------------------------------------------------------------------

Get = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def get(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Presses the button; what it says, and the visitor's list and choice at the end."""
    monkeypatch.setattr(runtime, "model", runtime.Models(load_checkpoint, 10**9))
    monkeypatch.setattr(ui_hub, "EVERY", 0.02)
    with gr.Blocks():
        choice, line = ModelChoice(gr.Dropdown(), gr.State({})), gr.HTML()
    names = {line: "line", choice.own: "own", choice.name: "name"}

    def press(repo: Any, any_repo: bool = True, own: Any = None) -> Any:
        for update in ui_hub.get(choice, line, any_repo, own or {}, repo):
            yield {names[part]: value for part, value in update.items()}

    return press


def test_the_app_says_what_comes_then_fetches_and_chooses(fake: FakeHub, get: Get) -> None:
    pressed = iter(get(NAME, own={"mine": "runs/mine"}))
    size = hub.describe(NAME).size
    assert next(pressed) == {
        "line": f"{NAME}: {size / 1e6:,.0f} MB, licence apache-2.0, 12,345 downloads."
    }
    assert fake.fetched == []
    *_, last = pressed
    assert WEIGHTS in fake.fetched
    assert last["own"] == {"mine": "runs/mine", NAME: NAME}
    assert last["name"]["value"] == NAME
    assert NAME in last["name"]["choices"]
    assert last["line"] == f"{NAME} is chosen."

    fake.info_error = fake.fetch_error = network("offline")  # it is on the disk now
    first, last = get(NAME)
    assert first["line"] == f"{NAME} is on this disk already."
    assert last["own"] == {NAME: NAME}


def test_the_app_shows_how_far_a_download_is(
    fake: FakeHub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake.snapshot_download
    monkeypatch.setattr(
        ui_hub, "describe", lambda _repo: hub.RepoInfo(NAME, {"a": int(40e6)}, "mit", 1)
    )
    go, ended = threading.Event(), threading.Event()

    def slow(repo_id: str, *, tqdm_class: Any = None, **options: Any) -> str:
        if WEIGHTS in options["allow_patterns"]:
            bar, files = tqdm_class(total=0, unit="B", unit_scale=True), tqdm_class(total=4)
            try:
                while bar.n < 40e6:
                    bar.update(10e6)
                    bar.set_postfix_str("1 MB/s")
                    files.update(1)
                    assert go.wait(30)
                    go.clear()
            finally:
                ended.set()
        return whole(repo_id, tqdm_class=tqdm_class, **options)

    monkeypatch.setattr(hub, "snapshot_download", slow)

    def follow(pressed: Iterator[dict[str, Any]], megabytes: int) -> str:
        while f"{megabytes} of 40 MB" not in (line := next(pressed)["line"]):
            assert "tiny" in line
        return line

    pressed = iter(get(NAME))
    line = follow(pressed, 10)
    assert f'<progress max="{int(40e6)}" value="{int(10e6)}"' in line
    assert " s left" in line
    go.set()
    follow(pressed, 20)
    pressed.close()  # the visitor presses Stop, or leaves
    go.set()
    assert ended.wait(30)
    assert WEIGHTS not in fake.fetched


def test_strangers_get_the_listed_repos_only(fake: FakeHub, get: Get, folder: Path) -> None:
    for repo in (NAME, str(folder), "mnist", "", None, 7, ["google/ddpm-cifar10-32"], {}):
        with pytest.raises(gr.Error, match=r"repo is .* one of google/ddpm-cifar10-32, google/"):
            list(get(repo, any_repo=False))
    assert (fake.asked, fake.fetched) == (0, [])
    *_, last = get("google/ddpm-cifar10-32", any_repo=False)
    assert last["name"]["value"] == "google/ddpm-cifar10-32"


def test_a_folder_of_this_disk(fake: FakeHub, get: Get, folder: Path) -> None:
    first, last = get(f" {folder.name} ")
    assert first["line"] == f"{folder} is on this disk."
    assert last["own"] == {"tiny (this disk)": str(folder)}
    assert (fake.asked, fake.fetched) == (0, [])


BAD_IN_THE_APP: dict[str, str] = {
    "missing": r"There is no somebody/tiny .* or it is private",
    "private": r"There is no somebody/tiny .* or it is private",
    "gated": "somebody/tiny is gated",
    "offline": "somebody/tiny is not on this disk, and HF_HUB_OFFLINE forbids",
    "down": "somebody/tiny is not on this disk and can't be downloaded .HfHubHTTPError: 503",
    "no name": "repo is 'cats'; allowed is the name of a repo",
    "another pipeline": "_class_name is 'LDMPipeline'; allowed is 'DDPMPipeline' or",
    "1e9 channels": "block_out_channels is .1000000000, 1000000000.; allowed is",
    "too big": "somebody/tiny has 0 MB; the limit is 0 MB",
    "half": "is not a whole file of weights",
    "half on this disk": "is not a whole file of weights",
    "malice": "is broken or holds more than weights; it is refused, and nothing of it was run",
}


@pytest.mark.parametrize("case", BAD_IN_THE_APP)
def test_bad_models_are_one_line_in_the_app_which_goes_on(
    case: str, fake: FakeHub, get: Get, folder: Path, tmp_path: Path, unet: Any, monkeypatch: Any
) -> None:
    repo, weights = NAME, fake.source / WEIGHTS
    good = tmp_path / "good"
    shutil.copytree(folder, good)
    if case in ("missing", "gated", "offline", "down"):
        fake.info_error = network(case)
    elif case == "private":
        fake.info_error = answer(errors.RepositoryNotFoundError, 401)
    elif case == "no name":
        repo = "cats"
    elif case == "another pipeline":
        change(fake.source / "model_index.json", _class_name="LDMPipeline")
    elif case == "1e9 channels":
        change(fake.source / "unet" / "config.json", block_out_channels=[10**9, 10**9])
    elif case == "too big":
        monkeypatch.setenv("DDPM_DEMO_HUB_MB", "0.001")
    elif case == "half":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif case == "half on this disk":
        weights.write_bytes(weights.read_bytes()[:-100])
        repo = str(folder)
    else:
        weights.unlink()
        torch.save({"a": Malice(tmp_path / "harm")}, weights.with_suffix(".bin"))
    with pytest.raises(gr.Error) as raised:
        list(get(repo))
    said = html.unescape(raised.value.message)
    assert re.search(BAD_IN_THE_APP[case], said), said
    assert "\n" not in said
    assert not (tmp_path / "harm").exists()
    *_, last = get(str(good))
    assert last["own"] == {"good (this disk)": str(good)}


def test_the_line_before_a_download(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ui_hub.about("google/ddpm-church-256", False)
    assert listed.startswith("google/ddpm-church-256: 0 MB, licence apache-2.0, 12,345 downloads. ")
    assert listed.endswith(" LSUN, churches, 256 × 256.")
    monkeypatch.setenv("DDPM_DEMO_HUB_MB", "0.001")
    assert ui_hub.about(NAME, True).endswith("12,345 downloads: over the limit of 0 MB.")
    assert fake.fetched == []
    assert ui_hub.about("<b>", True).startswith("repo is &#x27;&lt;b&gt;&#x27;; allowed is")
    assert "one of google/" in ui_hub.about(NAME, False)


def test_the_first_repo_is_offered_where_it_can_be_had(fake: FakeHub) -> None:
    entry, line = ui_hub.offer()
    assert entry["open"]
    assert line.startswith("google/ddpm-cifar10-32: ")
    ui_hub.describe.cache_clear()
    fake.info_error = network("unreachable")
    assert "open" not in ui_hub.offer()[0]
    fake.cache.mkdir()
    shutil.copytree(fake.source, fake.cache, dirs_exist_ok=True)
    assert ui_hub.offer()[0]["open"]
