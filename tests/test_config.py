"""Bad values are refused in one sentence that names the value and what is allowed."""

import dataclasses
import math
from typing import Any

import pytest

from ddpm_demo.config import (
    DiffusionConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    from_dict,
)

NAN, INF = math.nan, math.inf
BAD: list[tuple[type, str, list[Any], str]] = [
    (DiffusionConfig, "T", [9, 4001, 10.5, NAN, "100", True, None], "a whole number from 10 to 4,"),
    (DiffusionConfig, "schedule", ["sigmoid", "", None, 3], "linear, cosine or scaled_linear"),
    (DiffusionConfig, "beta_start", [0, -1e-4, 1e-9, NAN, INF, "x", 0.9991], "from 1e-08 to 0.999"),
    (DiffusionConfig, "beta_end", [9e-5, 1, NAN, -INF], "from 0.0001 to 0.999"),
    (DiffusionConfig, "noise", ["uniform"], "gaussian or laplace"),
    (DiffusionConfig, "predict", ["x", None], "eps, x0 or v"),
    (ModelConfig, "size", [7, 1025, 32.0], "from 8 to 1,024"),
    (ModelConfig, "channels", [0, 2, 4], "1 or 3"),
    (ModelConfig, "width", [0, 10**9, 64.5, NAN], "a whole number from 8 to 1,024"),
    (ModelConfig, "multipliers", [(), (1,) * 9, (0,), (17,), (1.5, 2), ("a",), 4, None], "1 to 8"),
    (ModelConfig, "blocks", [0, 9, 1.0], "from 1 to 8"),
    (ModelConfig, "attention", [8, (0,), (8.0,), ("8",)], "resolutions from 1 to 1024"),
    (ModelConfig, "mid_attention", [2, "yes"], "True or False"),
    (ModelConfig, "head_dim", [0, -8, 48, 0.5, "8"], "a"),
    (ModelConfig, "norm", ["batch"], "group or layer"),
    (ModelConfig, "norm_eps", [0, NAN], "above 0 and up to 1"),
    (ModelConfig, "dropout", [-0.1, 1, NAN], "from 0 to 0.95"),
    (ModelConfig, "time_dim", [0, -5, 10**9, 1.5, "a"], "from 1 to 65,536"),
    (ModelConfig, "freq_shift", [-1, 32, NAN], "from 0 to 1"),
    (ModelConfig, "downsample", ["pool"], "conv or resnet"),
    (ModelConfig, "upsample", ["pool"], "conv or resnet"),
    (ModelConfig, "down_padding", [2], "0 or 1"),
    (ModelConfig, "num_classes", [-1, 10_001, 1.5], "from 0 to 10,000"),
    (TrainConfig, "loss", ["l2"], "mse, l1, smooth_l1 or huber"),
    (TrainConfig, "weighting", ["snr"], "none or min-snr"),
    (TrainConfig, "batch_size", [0, 1.5], "a whole number from 1"),
    (TrainConfig, "lr", [0, -1e-3, 0.2, NAN], "above 0 and up to 0.1"),
    (TrainConfig, "ema", [-0.1, 1, NAN], "from 0 to 0.999999"),
    (TrainConfig, "warmup", [-1, 0.5, 10**7], "a whole number from 0 to 1,000,000"),
    (TrainConfig, "decay", [-0.1, 1.1, NAN], "from 0 to 1"),
    (TrainConfig, "weight_decay", [-0.1, 1.1, NAN], "from 0 to 1"),
    (TrainConfig, "beta2", [-0.1, 1, NAN], "from 0 to 0.99999"),
    (TrainConfig, "seed", [-1, 2**32, 0.5], "from 0 to 4,294,967,295"),
    (TrainConfig, "preview_every", [0, 1.5, NAN], "a whole number from 1"),
    (TrainConfig, "grad_clip", [0, NAN], "above 0"),
    (TrainConfig, "label_dropout", [1.1], "from 0 to 1"),
    (TrainConfig, "images", [0, -1, NAN], "above 0"),
    (TrainConfig, "epochs", [0], "above 0"),
    (TrainConfig, "minutes", [0, INF], "above 0"),
    (SampleConfig, "sampler", ["euler"], "ddpm, ddim"),
    (SampleConfig, "steps", [0, 4001, 2.0, NAN], "a whole number from 1 to 4,000"),
    (SampleConfig, "n", [0, 100_001], "from 1 to 100,000"),
    (SampleConfig, "seed", [-1, 2**32, 0.5], "from 0 to 4,294,967,295"),
    (
        SampleConfig,
        "spacing",
        ["random"],
        "uniform, quadratic, trailing, leading, logsnr or karras",
    ),
    (SampleConfig, "variance", ["learned"], "beta_tilde or beta"),
    (SampleConfig, "eta", [-0.1, 1.1, NAN], "from 0 to 1"),
    (SampleConfig, "guidance", [-1, 21, NAN], "from 0 to 20"),
]


@pytest.mark.parametrize(
    ("cls", "name", "value", "allowed"),
    [(cls, name, value, allowed) for cls, name, values, allowed in BAD for value in values],
)
def test_refused(cls: type, name: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"(?i)^{name} must be ") as caught:
        cls(**{name: value})
    message = str(caught.value)
    assert value in (None, "") or message.endswith(f", not {value!r}.")
    assert allowed in message
    assert message.endswith(".")
    assert "\n" not in message


def test_group_norm_needs_widths_that_its_groups_divide() -> None:
    ModelConfig(norm="group", width=64, groups=32)
    with pytest.raises(ValueError, match=r"Groups must be a divisor of each of \(48, 96\), not 32"):
        ModelConfig(norm="group", width=48, multipliers=(1, 2))
    with pytest.raises(ValueError, match="Groups must be"):
        ModelConfig(norm="group", groups=0)
    ModelConfig(norm="layer", width=48, multipliers=(1, 2))  # has no groups


@pytest.mark.parametrize("cls", [ModelConfig, DiffusionConfig, TrainConfig, SampleConfig])
def test_edges_are_allowed_and_configs_frozen(cls: type) -> None:
    config = cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.T = 3
    for T in (10, 4000):
        DiffusionConfig(T, beta_start=0.02, beta_end=0.02)
    SampleConfig(seed=2**32 - 1, eta=1, guidance=0, steps=4000)


def test_from_dict() -> None:
    """JSON turns tuples into lists; here they come back."""
    config = ModelConfig(multipliers=(1, 3), attention=())
    values = dataclasses.asdict(config)
    assert from_dict(ModelConfig, values | {"multipliers": [1, 3], "attention": []}) == config
    with pytest.raises(ValueError, match="ModelConfig has no depth, heads; known are size, chann"):
        from_dict(ModelConfig, values | {"heads": 1, "depth": 2})


@pytest.mark.parametrize(
    ("size", "attention", "levels"),
    [(32, (16,), [1]), (28, (7, 14), [1, 2]), (30, (8,), [2]), (32, (5,), [])],
)
def test_attention_is_placed_by_resolution(
    size: int, attention: tuple[int, ...], levels: list[int]
) -> None:
    config = ModelConfig(size=size, multipliers=(1, 2, 2), attention=attention)
    assert [i for i in range(3) if config.has_attention(i)] == levels


def test_a_run_needs_a_length() -> None:
    with pytest.raises(ValueError, match="a number of images, epochs or minutes"):
        TrainConfig().require_length()
    for length in ("images", "epochs", "minutes"):
        TrainConfig(**{length: 1}).require_length()
