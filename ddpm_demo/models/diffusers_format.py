"""Published DDPMs: diffusers' folders into our network and back; `hub` has the way to the Hub.

A published model is a `UNet2DModel` with a scheduler's configuration, in a pipeline's folders
(`unet/`, `scheduler/`) or all in one as the first ones were. Its parameters have our names, so what
needs translating is the configuration. One that our network, schedule or samplers would run
differently from diffusers is refused with the key that stands in the way. The scheduler's choices
for sampling come as `Checkpoint.info["sample"]`, in the names of `SampleConfig`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import reprlib
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, from_dict
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, check_parameters
from ddpm_demo.nn.unet import UNet

PIPELINES = ("DDPMPipeline", "DDIMPipeline")

# UNet2DModel's keys that mean what ours mean, and its defaults.
SAME: dict[str, tuple[str, Any]] = {
    "in_channels": ("channels", 3),
    "layers_per_block": ("blocks", 2),
    "add_attention": ("mid_attention", True),
    "attention_head_dim": ("head_dim", 8),
    "norm_num_groups": ("groups", 32),
    "norm_eps": ("norm_eps", 1e-5),
    "dropout": ("dropout", 0.0),
    "time_embedding_dim": ("time_dim", None),
    "freq_shift": ("freq_shift", 0),
    "flip_sin_to_cos": ("flip_sin_to_cos", True),
    "downsample_type": ("downsample", "conv"),
    "upsample_type": ("upsample", "conv"),
    "downsample_padding": ("down_padding", 1),
}
# Keys for which our network has one meaning only; the first value is the default.
FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
OTHER = (  # translated one by one; the last is for learned time embeddings only
    *("sample_size", "out_channels", "block_out_channels", "down_block_types", "up_block_types"),
    *("resnet_time_scale_shift", "attn_norm_num_groups", "num_train_timesteps"),
)
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SPACINGS = {"leading": "leading", "trailing": "trailing", "linspace": "uniform"}
VARIANCES = {"fixed_small": "beta_tilde", "fixed_large": "beta", "fixed_small_log": "beta_tilde"}
THEIRS = {ours: theirs for theirs, (ours, _) in SAME.items()} | {
    "size": "sample_size",
    "T": "num_train_timesteps",
}
# Weights from before diffusers 0.12 have these names in their attentions.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_NAME = re.compile(rf"(?<=\.)({'|'.join(OLD_NAMES)})(?=\.(?:weight|bias)$)")


# ---- configurations -----------------------------------------------------------------------------


def _require(ok: bool, key: str, value: object, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{key} is {reprlib.repr(value)}; allowed is {allowed}.")


def _one_of(config: Mapping[str, Any], key: str, default: Any, allowed: Collection[Any]) -> Any:
    value = config.get(key, default)
    _require(value in tuple(allowed), key, value, " or ".join(map(repr, allowed)))
    return value


def _levels(config: Mapping[str, Any]) -> tuple[list[int], list[bool]]:
    """Widths of the levels, and which have attention."""
    widths = config.get("block_out_channels", [224, 448, 672, 896])
    ok = isinstance(widths, list) and 1 <= len(widths) <= 8
    ok = ok and all(type(w) is int and w > 0 for w in widths)
    _require(ok, "block_out_channels", widths, "1 to 8 whole numbers above 0")

    def attends(key: str, plain: str, default: list[bool]) -> list[bool]:
        blocks = config.get(key, ["Attn" * a + plain for a in default])
        ok = isinstance(blocks, list) and len(blocks) == len(widths)
        _require(ok, key, blocks, f"a list of {len(widths)}, as block_out_channels has")
        for block in blocks:
            _require(block in (plain, "Attn" + plain), key, block, f"{plain} or Attn{plain}")
        return [block != plain for block in blocks]

    down = attends("down_block_types", "DownBlock2D", [False, True, True, True])
    up = attends("up_block_types", "UpBlock2D", [True, True, True, False])
    same = "attention at the same levels as in down_block_types"
    _require(up == down[::-1], "up_block_types", config.get("up_block_types"), same)
    return widths, down


def _model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Our network for a UNet2DModel's configuration.

    Raises:
        ValueError: it is another network; the message names the key.
    """
    _one_of(config, "_class_name", None, ("UNet2DModel",))
    for key, allowed in FIXED.items():
        _one_of(config, key, allowed[0], allowed)
    known = {*SAME, *FIXED, *OTHER}
    for key, value in config.items():
        ignored = key in known or key.startswith("_") or value in (None, False)
        _require(ignored, key, value, "nothing, as the key is unknown")
    widths, attends = _levels(config)
    same = {}
    for key, (ours, default) in SAME.items():
        same[ours] = value = config.get(key, default)
        like = type(value) in (type(default), int, type(None))
        _require(like, key, value, f"a value like {default!r}")
    _one_of(config, "out_channels", 3, (same["channels"],))
    shift = _one_of(config, "resnet_time_scale_shift", "default", ("default", "scale_shift"))
    # diffusers leaves the middle attention without a norm here, unless told its groups.
    groups = (same["groups"],) if shift == "scale_shift" else (None, same["groups"])
    if same["mid_attention"]:
        _one_of(config, "attn_norm_num_groups", None, groups)
    size: Any = config.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    _require(type(size) is int, "sample_size", size, "one whole number, or the same twice")
    width = math.gcd(*widths)
    ok = 8 <= width <= 1024 and max(widths) <= 16 * width
    _require(ok, "block_out_channels", widths, "1 to 16 times one width from 8 to 1,024")
    levels = [-(-size // 2**i) for i in range(len(widths))]
    model = ModelConfig(
        size=size,
        width=width,
        multipliers=tuple(w // width for w in widths),
        attention=tuple(sorted({r for r, a in zip(levels, attends, strict=True) if a})),
        norm="group",
        scale_shift=shift == "scale_shift",
        **same,
    )
    told = [model.has_attention(i) for i in range(len(widths))] == attends
    where = "attention at all levels of 1 × 1 pixel or at none"
    _require(told, "down_block_types", config.get("down_block_types"), where)
    return model


def _process(config: Mapping[str, Any]) -> tuple[DiffusionConfig, dict[str, Any]]:
    """The process that a scheduler's configuration is for, and its choices for sampling.

    Keys that the scheduler doesn't know are ignored as diffusers does: old files are full of them.

    Raises:
        ValueError: it is another process; the message names the key.
    """
    scheduler = _one_of(config, "_class_name", None, ("DDPMScheduler", "DDIMScheduler"))
    _one_of(config, "trained_betas", None, (None,))
    _one_of(config, "thresholding", False, (False,))
    _one_of(config, "rescale_betas_zero_snr", False, (False,))
    schedule = SCHEDULES[_one_of(config, "beta_schedule", "linear", SCHEDULES)]
    betas = {}
    if schedule != "cosine":
        betas = {k: config[k] for k in ("beta_start", "beta_end") if k in config}
    predict = PREDICTIONS[_one_of(config, "prediction_type", "epsilon", PREDICTIONS)]
    T = config.get("num_train_timesteps", 1000)
    process = DiffusionConfig(T=T, schedule=schedule, predict=predict, **betas)

    sample: dict[str, Any] = {
        "spacing": SPACINGS[_one_of(config, "timestep_spacing", "leading", SPACINGS)],
        "clip": bool(_one_of(config, "clip_sample", True, (True, False))),
    }
    if sample["clip"]:
        _one_of(config, "clip_sample_range", 1.0, (1.0,))
    if sample["spacing"] == "leading":
        _one_of(config, "steps_offset", 0, (0,))
    if scheduler == "DDIMScheduler":
        _one_of(config, "set_alpha_to_one", True, (True,))
    else:
        sample["variance"] = VARIANCES[_one_of(config, "variance_type", "fixed_small", VARIANCES)]
    return process, sample


def _json(folder: Path, *names: str) -> dict[str, Any]:
    """The first of these files that is there."""
    for path in (folder / n for n in names):
        if path.is_file():
            try:
                value = json.loads(path.read_bytes())
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                return value
            raise ValueError(f"{path.name} is not a JSON object.")
    raise ValueError(f"{names[0]} is missing.")


def read_configs(folder: Path, name: str) -> tuple[ModelConfig, DiffusionConfig, dict[str, Any]]:
    """The network, the process and the sampling choices of a published folder.

    Raises:
        CheckpointError: they can't be expressed; the message names the key and its value.
    """
    try:
        if (folder / "model_index.json").is_file():
            _one_of(_json(folder, "model_index.json"), "_class_name", None, PIPELINES)
        model = _model_config(_json(folder, "unet/config.json", "config.json"))
        names = ("scheduler/scheduler_config.json", "scheduler_config.json")
        return model, *_process(_json(folder, *names))
    except ValueError as error:
        ours, _, rest = str(error).partition(" ")
        raise CheckpointError(
            f"{name} can't be used: {THEIRS.get(ours, ours)} {rest}"[:400]
        ) from None


# ---- folders ------------------------------------------------------------------------------------


def weight_files(names: Collection[str]) -> list[str]:
    """Of a folder's files, the one with the weights or all of its shards; safetensors first."""
    for suffix in ("safetensors", "bin"):
        if (whole := f"diffusion_pytorch_model.{suffix}") in names:
            return [whole]
        shard = re.compile(rf"diffusion_pytorch_model-\d+-of-(\d+)\.{suffix}")
        shards = {n: int(m[1]) for n in names if (m := shard.fullmatch(n))}
        if shards and set(shards.values()) == {len(shards)}:
            return sorted(shards)
    return []


def local_weights(folder: Path) -> list[Path]:
    at = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    return [at / n for n in weight_files(os.listdir(at))]


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Of a pickle, only what makes up tensors is read.

    Raises:
        CheckpointError: the file is not whole, or more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is broken or holds more than weights; it is refused, and nothing of it "
            "was run."
        ) from None
    except Exception as error:  # a broken pickle or archive raises whatever it likes
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is not a whole file of weights ({reason}).") from None
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if not isinstance(state, dict) or not all(
        isinstance(k, str)
        and isinstance(v, Tensor)
        and (v.device.type, v.layout) == ("cpu", torch.strided)
        and v.dtype in kinds
        for k, v in state.items()
    ):
        raise CheckpointError(f"{path.name} is not a table of names and floating-point tensors.")
    return state


def load_diffusers(folder: Path, name: str = "", device: str | torch.device = "cpu") -> Checkpoint:
    """Rebuild a published network, in eval mode, from its folder.

    Args:
        name: what to call it; the folder's own name by default.

    Raises:
        CheckpointError: it can't be expressed, or isn't whole.
        CheckpointError: parameters are missing, unknown, misshapen or not finite.
    """
    name = name or folder.name
    config, process, sample = read_configs(folder, name)
    files = local_weights(folder)
    if not files:
        raise CheckpointError(f"{name} has no whole diffusion_pytorch_model.safetensors or .bin.")
    state: dict[str, Tensor] = {}
    for file in files:
        for key, value in _read(file).items():
            state[OLD_NAME.sub(lambda m: OLD_NAMES[m[1]], key)] = value
    with torch.device("meta"):  # no memory for a network whose weights turn out not to fit
        model = UNet(config)
    check_parameters(name, model.state_dict(), state)
    model = model.to_empty(device="cpu").to(memory_format=torch.channels_last)
    model.load_state_dict(state)
    return Checkpoint(model.to(device).eval(), process, {"sample": sample}, name)


def export_diffusers(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a new folder that `diffusers.DDPMPipeline.from_pretrained` runs.

    A model with classes becomes the model of its null class: diffusers' pipelines have no labels.

    Raises:
        ValueError: diffusers can't run the model, or the folder is there already.
        OSError: it can't be written.
    """
    model, process = checkpoint.model.config, checkpoint.diffusion
    step = 2 ** (len(model.widths) - 1)
    _require(model.norm == "group", "norm", model.norm, "'group', as diffusers has no other")
    _require(process.noise == "gaussian", "noise", process.noise, "'gaussian', as in diffusers")
    _require(model.size % step == 0, "size", model.size, f"a multiple of {step} in diffusers")
    _require(not folder.exists(), "folder", str(folder), "one that isn't there yet")
    sample = from_dict(SampleConfig, checkpoint.info.get("sample") or {})

    state = {k: v.detach().cpu().contiguous() for k, v in checkpoint.model.state_dict().items()}
    if model.num_classes:
        null = state.pop("class_embedding.weight")[-1]
        bias = "time_embedding.linear_2.bias"
        state[bias] = state[bias] + null
    attends = [model.has_attention(i) for i in range(len(model.widths))]
    unet = {theirs: getattr(model, ours) for theirs, (ours, _) in SAME.items()} | {
        "_class_name": "UNet2DModel",
        "sample_size": model.size,
        "out_channels": model.channels,
        "block_out_channels": list(model.widths),
        "down_block_types": ["Attn" * a + "DownBlock2D" for a in attends],
        "up_block_types": ["Attn" * a + "UpBlock2D" for a in reversed(attends)],
        "resnet_time_scale_shift": "scale_shift" if model.scale_shift else "default",
        "attn_norm_num_groups": model.groups,
    }
    spacings = {ours: theirs for theirs, ours in SPACINGS.items()}
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": process.T,
        "beta_schedule": {v: k for k, v in SCHEDULES.items()}[process.schedule],
        "beta_start": process.beta_start,
        "beta_end": process.beta_end,
        "prediction_type": {v: k for k, v in PREDICTIONS.items()}[process.predict],
        "variance_type": "fixed_large" if sample.variance == "beta" else "fixed_small",
        "clip_sample": sample.clip,
        "timestep_spacing": spacings.get(sample.spacing, "trailing"),
    }
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary, "new")
        for part in ("unet", "scheduler"):
            (new / part).mkdir(parents=True)
        for name, about in (
            ("model_index.json", index),
            ("unet/config.json", unet),
            ("scheduler/scheduler_config.json", scheduler),
        ):
            (new / name).write_text(json.dumps(about, indent=2) + "\n")
        weights = save(state, {"format": "pt"})
        (new / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
        new.rename(folder)
    return folder
