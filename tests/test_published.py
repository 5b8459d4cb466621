"""diffusers is the oracle: folders that it writes give its predictions and its pictures in ours."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    UNet2DModel,
)
from folders import PUBLISHED, TINY, Malice, blocks, change, error, prediction_error
from safetensors.torch import load_file, save_file

from ddpm_demo.cli import main
from ddpm_demo.config import ModelConfig, SampleConfig
from ddpm_demo.diffusion import Noise
from ddpm_demo.inference.generate import generate
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from ddpm_demo.models.diffusers_config import model_config
from ddpm_demo.models.diffusers_format import export_diffusers, read_configs
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet

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


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNETS)
def test_same_predictions(name: str, tmp_path: Path, unet: Callable[..., UNet2DModel]) -> None:
    theirs = unet(**UNETS[name])
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path / "new")
    ours = load_checkpoint(tmp_path / "new")
    assert ours.name == "new"
    assert not ours.model.training
    assert prediction_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize(
    ("size", "widths", "attention", "millions"),
    [
        (32, (128, 256, 256, 256), "-A--", 35.7),
        (256, (128, 128, 256, 256, 512, 512), "----A-", 113.7),
    ],
)
def test_networks_of_the_listed_repos(
    size: int, widths: tuple[int, ...], attention: str, millions: float, tmp_path: Path
) -> None:
    """At full width, with the names and shapes of all parameters; no memory is taken."""
    said = {"sample_size": size, "block_out_channels": widths, "layers_per_block": 2}
    with torch.device("meta"):
        theirs = UNet2DModel(**PUBLISHED, **blocks(attention), **said)
        theirs.save_config(tmp_path)
        DDPMScheduler(variance_type="fixed_large").save_config(tmp_path)
        ours = UNet(read_configs(tmp_path, "new")[0])
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert round(sum(p.numel() for p in ours.parameters()) / 1e6, 1) == millions
    if size == 32:
        assert ours.config == ModelConfig.paper(dropout=0.0)


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
    assert model_config(bare) == model_config(said)


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
        with pytest.raises(CheckpointError, match="no whole diffusion_pytorch_model"):
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
    made = export_diffusers(ours, tmp_path / "deep" / "new")
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
    made = export_diffusers(ours, tmp_path / "new")
    assert load_checkpoint(made).info["sample"] == ours.info["sample"]
    scheduler = DDPMPipeline.from_pretrained(made).scheduler.config
    assert (scheduler.timestep_spacing, scheduler.clip_sample) == ("linspace", False)
    assert scheduler.variance_type == "fixed_large"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, "Norm must be .*, not 'layer'"),
        ({"noise": "laplace"}, "Noise must be .*, not 'laplace'"),
        ({"size": 9}, "Size must be a multiple of 2"),
    ],
)
def test_export_refuses(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny: Callable[..., Checkpoint]
) -> None:
    with pytest.raises(ValueError, match=message):
        export_diffusers(tiny(**({"norm": "group", "groups": 4} | changes)), tmp_path / "new")
    assert not any(tmp_path.iterdir())


def test_export_never_writes_over(tmp_path: Path, tiny: Callable[..., Checkpoint]) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(ValueError, match=r"one that isn't there yet, not .*kept"):
        export_diffusers(tiny(norm="group", groups=4), tmp_path / "kept")


def test_export_leaves_nothing_when_it_fails(
    tmp_path: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export_diffusers(tiny(norm="group", groups=4), tmp_path / "new")
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
    assert "Norm must be 'group', not 'layer': diffusers has no other." in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "other").exists()


# ---- refusals -----------------------------------------------------------------------------------

REFUSED_UNET: list[tuple[dict[str, Any], str]] = [
    ({"_class_name": "UNet2DConditionModel"}, "_class_name must be .*, not 'UNet2DConditionModel'"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type must be .*, not 'fourier'"),
    (
        {"down_block_types": ["SkipDownBlock2D"] * 2},
        "down_block_types must be .*, not 'SkipDownBlock2D'",
    ),
    (
        {"up_block_types": ["UpBlock2D", "SkipUpBlock2D"]},
        "up_block_types must be .*, not 'SkipUpBlock2D'",
    ),
    (
        blocks("-A") | {"up_block_types": ["UpBlock2D"] * 2},
        "up_block_types must be attention at the same levels",
    ),
    ({"down_block_types": ["DownBlock2D"]}, "down_block_types must be a list of 2"),
    ({"down_block_types": None}, "down_block_types must be"),
    ({"center_input_sample": True}, "center_input_sample must be .*, not True"),
    ({"mid_block_scale_factor": 1.4142}, "mid_block_scale_factor must be .*, not 1.4142"),
    ({"mid_block_type": None}, "mid_block_type must be"),
    ({"act_fn": "gelu"}, "act_fn must be 'silu' or 'swish', not 'gelu'"),
    ({"class_embed_type": "timestep"}, "class_embed_type must be .*, not 'timestep'"),
    ({"num_class_embeds": 10}, "num_class_embeds must be None"),
    ({"attn_norm_num_groups": 2}, "attn_norm_num_groups must be None or 4, not 2"),
    ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups must be 4"),
    (
        {"resnet_time_scale_shift": "ada_group"},
        "resnet_time_scale_shift must be .*, not 'ada_group'",
    ),
    ({"norm_num_groups": 3}, "norm_num_groups must be a divisor"),
    ({"norm_num_groups": None}, "norm_num_groups must be"),
    ({"norm_num_groups": 0}, "norm_num_groups must be .*, not 0"),
    ({"norm_num_groups": 4.0}, "norm_num_groups must be a value like 32"),
    ({"norm_eps": float("inf")}, "norm_eps must be"),
    ({"attention_head_dim": 5}, "attention_head_dim must be a divisor"),
    ({"attention_head_dim": "8"}, "attention_head_dim must be .*, not '8'"),
    ({"add_attention": "yes"}, "add_attention must be .*, not 'yes'"),
    ({"freq_shift": 4}, "freq_shift must be .*, not 4"),
    ({"time_embedding_dim": 10**9}, "time_embedding_dim must be .*, not 1000000000"),
    ({"downsample_type": "fir"}, "downsample_type must be .*, not 'fir'"),
    ({"upsample_type": "fir"}, "upsample_type must be .*, not 'fir'"),
    ({"downsample_padding": 2}, "downsample_padding must be .*, not 2"),
    ({"in_channels": 4, "out_channels": 4}, "in_channels must be 1 or 3, not 4"),
    ({"out_channels": 6}, "out_channels must be 3"),
    ({"sample_size": None}, "sample_size must be"),
    ({"sample_size": [8, 16]}, "sample_size must be .*, not .8, 16."),
    ({"sample_size": 10**9}, "sample_size must be .*, not 1000000000"),
    (
        {"block_out_channels": [10**9, 10**9]},
        "block_out_channels must be .*, not .1000000000, 1000000000.",
    ),
    ({"block_out_channels": [1e9, 1e9]}, "block_out_channels must be .*, not .1000000000.0"),
    (
        {"block_out_channels": [2048, 2048]},
        "block_out_channels must be .*from 8 to 1,024, not .2048",
    ),
    ({"block_out_channels": [8, 136]}, "block_out_channels must be 1 to 16 times"),
    ({"block_out_channels": [-8, 8]}, "block_out_channels must be .*above 0.*, not .-8, 8."),
    ({"block_out_channels": [8] * 10**6}, "block_out_channels must be .*, not .8, 8, 8, 8, 8, 8"),
    ({"block_out_channels": [8, 9]}, "block_out_channels must be .*8 to 1,024.*, not .8, 9."),
    ({"block_out_channels": "wide"}, "block_out_channels must be .*, not 'wide'"),
    ({"layers_per_block": 10**9}, "layers_per_block must be .*, not 1000000000"),
    ({"dropout": "none"}, "Dropout must be .*, not 'none'"),
    ({"gated": [1]}, "Gated must be left out, not .1.: the key is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_UNET, ids=[m for _, m in REFUSED_UNET])
def test_refused_networks(changes: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=f"tiny can't be used: {message}") as raised:
        load_checkpoint(folder)
    assert len(str(raised.value)) <= 400
    assert "\n" not in str(raised.value)


def test_attention_at_one_of_two_levels_of_one_pixel(folder: Path) -> None:
    changes = blocks("----A") | {"block_out_channels": [8] * 5}
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=r"down_block_types .* 1 × 1 pixel"):
        load_checkpoint(folder)


def test_ignored_keys(folder: Path) -> None:
    extra = {"_name_or_path": "somewhere", "new_and_off": False, "num_train_timesteps": 1000}
    change(folder / "unet" / "config.json", sample_size=[8, 8], **extra)
    change(folder / "scheduler" / "scheduler_config.json", tensor_format="np", steps_offset=0)
    assert load_checkpoint(folder).model.config.size == 8


REFUSED_SCHEDULER: list[tuple[dict[str, Any], str]] = [
    ({"_class_name": "ScoreSdeVeScheduler"}, "_class_name must be .*, not 'ScoreSdeVeScheduler'"),
    ({"beta_schedule": "sigmoid"}, "beta_schedule must be 'linear', "),
    ({"beta_schedule": ["linear"]}, "beta_schedule must be .*, not .'linear'."),
    ({"trained_betas": [0.1] * 1000}, "trained_betas must be .*, not .0.1, 0.1"),
    ({"variance_type": "learned_range"}, "variance_type must be .*, not 'learned_range'"),
    ({"variance_type": "fixed_large_log"}, "variance_type must be .*, not 'fixed_large_log'"),
    ({"prediction_type": "flow"}, "prediction_type must be .*, not 'flow'"),
    ({"thresholding": True}, "Thresholding must be .*, not True"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr must be .*, not True"),
    ({"clip_sample_range": 2.0}, "clip_sample_range must be .*, not 2.0"),
    ({"clip_sample": "often"}, "clip_sample must be .*, not 'often'"),
    ({"steps_offset": 1}, "steps_offset must be .*, not 1"),
    ({"timestep_spacing": "log"}, "timestep_spacing must be .*, not 'log'"),
    ({"num_train_timesteps": 10**9}, "num_train_timesteps must be .*, not 1000000000"),
    ({"beta_end": 2}, "beta_end must be .*, not 2"),
    ({"beta_start": "small"}, "beta_start must be .*, not 'small'"),
    ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, "set_alpha_to_one must be True"),
]


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED_SCHEDULER, ids=[m for _, m in REFUSED_SCHEDULER]
)
def test_refused_processes(changes: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(CheckpointError, match=f"tiny can't be used: {message}"):
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
    with pytest.raises(
        CheckpointError, match=r"_class_name must be .*, not 'StableDiffusionPipeline'"
    ):
        load_checkpoint(folder)
    change(folder / "model_index.json", _class_name="DDIMPipeline")
    assert load_checkpoint(folder)
    for text in ("{", "[]", "[" * 100_000, "\x00"):
        (folder / "unet" / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config.json is not a JSON object"):
            load_checkpoint(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"unet/config.json is missing"):
        load_checkpoint(folder)


def test_missing_scheduler_and_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="tiny has no whole diffusion_pytorch_model"):
        load_checkpoint(folder)
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(CheckpointError, match=r"scheduler/scheduler_config.json is missing"):
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


@pytest.fixture
def bin_file(folder: Path) -> Path:
    """Where the weights go as a pickle."""
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    return folder / "unet" / "diffusion_pytorch_model.bin"


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickles_are_refused(zipped: bool, tmp_path: Path, bin_file: Path) -> None:
    state = {"conv_in.bias": Malice(tmp_path / "harm")}
    torch.save(state, bin_file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="nothing of it was run") as raised:
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
        with pytest.raises(
            CheckpointError, match="not a table of names and floating-point tensors"
        ):
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
    with pytest.raises(
        CheckpointError, match=r"is not a whole file of weights|is broken"
    ) as raised:
        load_checkpoint(bin_file.parent.parent)
    assert file.name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_page_instead_of_weights(bin_file: Path) -> None:
    bin_file.write_text("<html>Not found</html>")
    with pytest.raises(CheckpointError, match="is broken or holds more than weights"):
        load_checkpoint(bin_file.parent.parent)
