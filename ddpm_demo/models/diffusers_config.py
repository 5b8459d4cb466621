"""Translates the configurations of diffusers' models to ours, and back.

A published model is a `UNet2DModel` with a scheduler. Its parameters have the same names as ours,
so only the configurations are translated. A model is refused if our network, schedule or samplers
would run it differently from diffusers. The message then names the key that stands in the way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, either, require

INDEX = "model_index.json"
UNET, UNET_FLAT = "unet/config.json", "config.json"  # the first published models have no folders
SCHEDULER, SCHEDULER_FLAT = "scheduler/scheduler_config.json", "scheduler_config.json"
PIPELINES = ("DDPMPipeline", "DDIMPipeline")

# UNet2DModel's keys that mean the same as ours: our name, and diffusers' default.
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
# Keys for which our network allows only these values; the first one is diffusers' default.
FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
OTHER = (  # keys translated one by one; the last matters only for learned time embeddings
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

Configs = dict[str, dict[str, Any]]  # JSON objects by the names of their files


def one_of(config: Mapping[str, Any], key: str, default: Any, allowed: Collection[Any]) -> Any:
    value = config.get(key, default)
    require(value in tuple(allowed), key, value, either(map(repr, allowed)))
    return value


def _levels(config: Mapping[str, Any]) -> tuple[list[int], list[bool]]:
    """The widths of the levels, and for each level True if it has attention."""
    widths = config.get("block_out_channels", [224, 448, 672, 896])
    ok = isinstance(widths, list) and 1 <= len(widths) <= 8
    ok = ok and all(type(w) is int and w > 0 for w in widths)
    require(ok, "block_out_channels", widths, "1 to 8 whole numbers above 0")

    def attends(key: str, plain: str, default: list[bool]) -> list[bool]:
        blocks = config.get(key, ["Attn" * a + plain for a in default])
        ok = isinstance(blocks, list) and len(blocks) == len(widths)
        require(ok, key, blocks, f"a list of {len(widths)}", "block_out_channels has as many")
        for block in blocks:
            require(block in (plain, "Attn" + plain), key, block, f"{plain} or Attn{plain}")
        return [block != plain for block in blocks]

    down = attends("down_block_types", "DownBlock2D", [False, True, True, True])
    up = attends("up_block_types", "UpBlock2D", [True, True, True, False])
    same = "attention at the same levels as in down_block_types"
    require(up == down[::-1], "up_block_types", config.get("up_block_types"), same)
    return widths, down


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Our network for a UNet2DModel's configuration.

    Raises:
        SettingError: our network can't do the same; the message names the key.
    """
    one_of(config, "_class_name", None, ("UNet2DModel",))
    for key, allowed in FIXED.items():
        one_of(config, key, allowed[0], allowed)
    known = {*SAME, *FIXED, *OTHER}
    for key, value in config.items():
        ignored = key in known or key.startswith("_") or value in (None, False)
        require(ignored, key, value, "left out", "the key is unknown")
    widths, attends = _levels(config)
    same = {}
    for key, (ours, default) in SAME.items():
        same[ours] = value = config.get(key, default)
        like = type(value) in (type(default), int, type(None))
        require(like, key, value, f"a value like {default!r}")
    one_of(config, "out_channels", 3, (same["channels"],))
    shift = one_of(config, "resnet_time_scale_shift", "default", ("default", "scale_shift"))
    # With scale_shift, diffusers gives the middle attention no norm unless its groups are set.
    groups = (same["groups"],) if shift == "scale_shift" else (None, same["groups"])
    if same["mid_attention"]:
        one_of(config, "attn_norm_num_groups", None, groups)
    size: Any = config.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    require(type(size) is int, "sample_size", size, "one whole number, or the same twice")
    width = math.gcd(*widths)
    ok = 8 <= width <= 1024 and max(widths) <= 16 * width
    require(ok, "block_out_channels", widths, "1 to 16 times one width from 8 to 1,024")
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
    require(told, "down_block_types", config.get("down_block_types"), where)
    return model


def process_config(config: Mapping[str, Any]) -> tuple[DiffusionConfig, dict[str, Any]]:
    """Our process for a scheduler's configuration, and its settings for sampling.

    Unknown keys are ignored, as diffusers does: old files are full of them.

    Raises:
        SettingError: our process can't do the same; the message names the key.
    """
    scheduler = one_of(config, "_class_name", None, ("DDPMScheduler", "DDIMScheduler"))
    one_of(config, "trained_betas", None, (None,))
    one_of(config, "thresholding", False, (False,))
    one_of(config, "rescale_betas_zero_snr", False, (False,))
    schedule = SCHEDULES[one_of(config, "beta_schedule", "linear", SCHEDULES)]
    betas = {}
    if schedule != "cosine":
        betas = {k: config[k] for k in ("beta_start", "beta_end") if k in config}
    predict = PREDICTIONS[one_of(config, "prediction_type", "epsilon", PREDICTIONS)]
    T = config.get("num_train_timesteps", 1000)
    process = DiffusionConfig(T=T, schedule=schedule, predict=predict, **betas)

    sample: dict[str, Any] = {
        "spacing": SPACINGS[one_of(config, "timestep_spacing", "leading", SPACINGS)],
        "clip": bool(one_of(config, "clip_sample", True, (True, False))),
    }
    if sample["clip"]:
        one_of(config, "clip_sample_range", 1.0, (1.0,))
    if sample["spacing"] == "leading":
        one_of(config, "steps_offset", 0, (0,))
    if scheduler == "DDIMScheduler":
        one_of(config, "set_alpha_to_one", True, (True,))
    else:
        sample["variance"] = VARIANCES[one_of(config, "variance_type", "fixed_small", VARIANCES)]
    return process, sample


def published(model: ModelConfig, process: DiffusionConfig, sample: SampleConfig) -> Configs:
    """The JSON files, by name, of a diffusers pipeline that runs this network and process.

    Raises:
        SettingError: diffusers can't run this model.
    """
    step = 2 ** (len(model.widths) - 1)
    require(model.norm == "group", "norm", model.norm, "'group'", "diffusers has no other")
    require(
        process.noise == "gaussian", "noise", process.noise, "'gaussian'", "diffusers has no other"
    )
    require(model.size % step == 0, "size", model.size, f"a multiple of {step} in diffusers")
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
    return {INDEX: index, UNET: unet, SCHEDULER: scheduler}
