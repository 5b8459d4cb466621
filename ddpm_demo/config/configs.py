"""The settings of models, diffusion processes, training runs and samplers.

Each setting is described once, in the field of its dataclass: its default, its help and its limits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from ddpm_demo.config.fields import check, number, one_of, require, setting, whole_numbers
from ddpm_demo.config.samplers import SAMPLERS

SCHEDULES = ("linear", "cosine", "scaled_linear")
NOISES = ("gaussian", "laplace")
PREDICTIONS = ("eps", "x0", "v")
LOSSES = ("mse", "l1", "smooth_l1", "huber")
WEIGHTINGS = ("none", "min-snr")
NORMS = ("group", "layer")
SPACINGS = ("uniform", "quadratic", "trailing", "leading", "logsnr", "karras")
VARIANCES = ("beta_tilde", "beta")
T_MIN, T_MAX = 10, 4000
BETA_MIN, BETA_MAX = 1e-8, 0.999  # outside of these, float32 loses the noise or the signal
SEED_MAX = 2**32 - 1

C = TypeVar("C")


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Build the dataclass `cls` from JSON values. An unknown key raises `ValueError`."""
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if cls is SampleConfig and "label" in values:  # older checkpoints have only one label
        values = {("labels" if k == "label" else k): v for k, v in values.items()}
        if isinstance(values["labels"], int):
            values = {**values, "labels": (values["labels"],)}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(
            f"{cls.__name__} has no {', '.join(unknown)}; known are {', '.join(known)}."
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class ModelConfig:
    """The U-Net. The defaults are the lean network for CPUs; `ModelConfig.paper()` is Ho et al.'s.

    Level i has `width * multipliers[i]` channels and works at `size / 2**i` pixels.
    """

    size: int = 32  # pixels a side of the training pictures; the network runs at any H x W
    channels: int = 3  # channels of the pictures, 1 or 3
    width: int = setting(64, "channels of the first level", low=8, high=1024, whole=True)
    multipliers: tuple[int, ...] = setting((1, 2, 2), "channels of each level, in widths")
    blocks: int = setting(1, "residual blocks in each level", low=1, high=8, whole=True)
    attention: tuple[int, ...] = setting(
        (8,), "resolutions with attention, or 'none'", none="the lowest"
    )
    mid_attention: bool = True
    head_dim: int | None = None  # channels per attention head; None is one head
    # "layer" normalises over all channels, which needs no copy in channels_last
    norm: str = setting("layer", "normalise over groups or over all channels", choices=NORMS)
    groups: int = 32
    norm_eps: float = 1e-6
    dropout: float = setting(0.0, "dropout in residual blocks", low=0, high=0.95)
    scale_shift: bool = True  # use the time embedding as scale and shift; False adds it (Ho et al.)
    time_dim: int | None = setting(512, "width of the time embedding")  # None is 4 * the width
    freq_shift: int = 0  # shifts the frequencies of the sinusoids; 1 in Ho et al.'s code
    flip_sin_to_cos: bool = False  # put cosines before sines
    downsample: str = "conv"  # "conv" (stride 2), or "resnet" (a residual block after attention)
    upsample: str = "conv"  # "conv" (nearest, then 3x3), or "resnet" as above
    down_padding: int = 1  # for stride-2 convolutions; 0 pads right and bottom (Ho et al.)
    num_classes: int = 0  # 0 is unconditional; with n, labels are 0..n-1, and n is the null class

    def __post_init__(self) -> None:
        check(self)
        number("size", self.size, 8, 1024, whole=True)
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        ok = whole_numbers(self.multipliers, 1, 16) and 1 <= len(self.multipliers) <= 8
        require(ok, "multipliers", self.multipliers, "1 to 8 levels, each 1 to 16 times the width")
        ok = whole_numbers(self.attention, 1, 1024)
        require(ok, "attention", self.attention, "resolutions from 1 to 1024")
        number("groups", self.groups, 1, 16_384, whole=True)
        number("norm_eps", self.norm_eps, 0, 1, above=True)
        if self.norm == "group":
            bad = [w for w in self.widths if w % self.groups]
            require(not bad, "groups", self.groups, f"a divisor of each of {self.widths}")
        if self.head_dim is not None:
            number("head_dim", self.head_dim, 1, 16_384, whole=True)
            require(
                not any(w % self.head_dim for w in self.attention_widths),
                "head_dim",
                self.head_dim,
                f"a divisor of every width that has attention, {self.attention_widths}",
            )
        if self.time_dim is not None:
            number("time_dim", self.time_dim, 1, 65_536, whole=True)
        number("freq_shift", self.freq_shift, 0, 1)
        ok = self.mid_attention in (True, False)
        require(ok, "mid_attention", self.mid_attention, "True or False")
        one_of("downsample", self.downsample, ("conv", "resnet"))
        one_of("upsample", self.upsample, ("conv", "resnet"))
        require(self.down_padding in (0, 1), "down_padding", self.down_padding, "0 or 1")
        number("num_classes", self.num_classes, 0, 10_000, whole=True)

    @classmethod
    def paper(cls, **changes: Any) -> ModelConfig:
        """Ho et al.'s CIFAR-10 network (appendix B): 35.7 M parameters."""
        paper: dict[str, Any] = {
            "width": 128,
            "multipliers": (1, 2, 2, 2),
            "blocks": 2,
            "attention": (16,),
            "norm": "group",
            "dropout": 0.1,
            "scale_shift": False,
            "time_dim": None,
            "freq_shift": 1,
            "down_padding": 0,
        }
        return cls(**(paper | changes))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * m for m in self.multipliers)

    @property
    def attention_widths(self) -> tuple[int, ...]:
        """The channels of each place with attention, including the middle."""
        levels = [w for i, w in enumerate(self.widths) if self.has_attention(i)]
        return tuple(levels + [self.widths[-1]] * self.mid_attention)

    def has_attention(self, level: int) -> bool:
        return -(-self.size // 2**level) in self.attention


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process: schedule of variances, kind of noise, and the network's target."""

    T: int = setting(
        1000,
        "number of steps from picture to noise",
        low=T_MIN,
        high=T_MAX,
        whole=True,
        option="timesteps",
        label="Steps T",
    )
    schedule: str = setting(
        "linear", "how fast the picture fades", choices=SCHEDULES, label="Schedule"
    )
    beta_start: float = setting(
        1e-4,
        "variance that the linear schedule adds in its first step",
        low=BETA_MIN,
        high=BETA_MAX,
        label="First β",
    )
    beta_end: float = setting(0.02, "variance that it adds in its last step", label="Last β")
    noise: str = setting(
        "gaussian",
        "kind of noise. Both kinds have mean 0 and variance 1",
        choices=NOISES,
        label="Noise",
    )
    predict: str = setting("eps", "what the network predicts", choices=PREDICTIONS)

    def __post_init__(self) -> None:
        check(self)
        number("beta_end", self.beta_end, self.beta_start, BETA_MAX)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. It ends at the first limit that it reaches: `images`, `epochs`, `minutes`."""

    dataset: str = setting("mnist", "mnist, fashion_mnist, cifar10, folder:PATH")
    only: str | None = setting(None, "train on one class", none="all of them")
    pictures: str | None = setting(
        None, "train on so many, of all classes alike: 100, or 100:200 for the next", none="all"
    )
    loss: str = setting("mse", "distance to the target", choices=LOSSES)
    # min-snr has gamma 5 (Hang et al. 2023, eq. 6)
    weighting: str = setting("none", "weights of the loss, by t", choices=WEIGHTINGS)
    batch_size: int = setting(
        64,
        "how many pictures each step learns from",
        low=1,
        high=65_536,
        whole=True,
        label="Batch size",
    )
    lr: float = setting(
        1e-3,
        "learning rate of AdamW: how far each step goes",
        low=0,
        high=0.1,
        above=True,
        label="Learning rate",
    )
    warmup: int = setting(300, "steps of learning rate warm-up", low=0, high=10**6, whole=True)
    decay: float = setting(0.2, "last share of the run, in which lr falls", low=0, high=1)
    weight_decay: float = setting(0.0, "weight decay of AdamW", low=0, high=1)
    beta2: float = setting(0.99, "beta2 of AdamW", low=0, high=0.99999)
    grad_clip: float = setting(1.0, "clip gradients to this length", low=0, high=10**6, above=True)
    ema: float = setting(0.9995, "decay of the averaged weights", low=0, high=0.999999)
    ema_rel: tuple[float, ...] = setting(
        (), "also keep power-function averages of these widths, such as 0.05,0.1", none="none"
    )
    label_dropout: float = setting(
        0.15, "share of the pictures that are learned as 'any'", low=0, high=1
    )
    flip: bool | None = setting(None, "mirror half of the pictures", none="all data but mnist")
    images: int | None = setting(
        None, "stop after this many pictures seen", low=0, high=10**12, above=True
    )
    epochs: float | None = setting(
        None, "stop after this many passes over the data", low=0, high=10**12, above=True
    )
    minutes: float | None = setting(
        None, "stop after this many minutes", low=0, high=10**12, above=True
    )
    seed: int = setting(0, "seed of all that is random", low=0, high=SEED_MAX, whole=True)
    preview_every: int = setting(
        50_000,
        "pictures between two previews, log lines and saved states",
        low=1,
        high=10**12,
        whole=True,
    )

    def __post_init__(self) -> None:
        check(self)
        ok = isinstance(self.ema_rel, (tuple, list)) and len(self.ema_rel) <= 4
        ok = ok and all(isinstance(w, float) and 0.01 <= w <= 0.25 for w in self.ema_rel)
        require(ok, "ema_rel", self.ema_rel, "at most four widths from 0.01 to 0.25")

    def require_length(self) -> None:
        """Raise `ValueError` unless the run has an end."""
        ends = bool(self.images or self.epochs or self.minutes)
        require(ends, "length of the run", None, "a number of images, epochs or minutes")


@dataclass(frozen=True)
class SampleConfig:
    """One run of a sampler. Picture k has the seed `seed + k`.

    The picture with seed s has the class `labels[s % len(labels)]`, whatever batch it is in.
    """

    sampler: str = setting(
        "ddim",
        "the rule for the next step. DDPM and SDE add fresh noise each time; the others follow one "
        "path from each noise",
        choices=SAMPLERS,
        label="Sampler",
    )
    steps: int = setting(
        50,
        "how many of the T steps to take: more is slower and finer",
        low=1,
        high=T_MAX,
        whole=True,
        label="Steps",
    )
    n: int = setting(
        16, "number of pictures", low=1, high=100_000, whole=True, label="Number of pictures"
    )
    seed: int = setting(
        0,
        "same seed, same starting noise. Picture k uses seed + k",
        low=0,
        high=SEED_MAX,
        whole=True,
        label="Seed",
    )
    spacing: str = setting(
        "trailing", "which of the T steps are taken", choices=SPACINGS, label="Timestep spacing"
    )
    variance: str = setting(
        "beta_tilde",
        "how much fresh noise a DDPM step adds",
        choices=VARIANCES,
        label="Variance (DDPM)",
    )
    eta: float = setting(
        0.0,
        "0 adds no noise on the way, 1 as much as DDPM",
        low=0,
        high=1,
        label="η (DDIM)",
    )
    clip: bool = setting(
        True, "keep the predicted picture within [-1, 1] at every step", label="Clip x̂₀"
    )
    labels: tuple[int, ...] | None = setting(
        None,
        "what to draw. With 'any', the model chooses and guidance does nothing",
        none="any",
        option="class",
        label="Class",
    )
    guidance: float = setting(
        1.0,
        "how strictly to follow the class. 1 = normal, higher = clearer but less varied",
        low=0,
        high=20,
        label="Guidance",
    )
    start: int | None = setting(
        None,
        "where to start. T = pure noise",
        low=1,
        high=T_MAX,
        whole=True,
        none="T",
        label="Start",
    )
    timesteps: tuple[int, ...] | None = setting(
        None, "falling list of t, instead of steps, spacing and start", none="as these three say"
    )

    def __post_init__(self) -> None:
        if self.timesteps is not None:
            falls = whole_numbers(self.timesteps, 1, T_MAX) and bool(self.timesteps)
            falls = falls and all(a > b for a, b in pairwise(self.timesteps))
            allowed = f"a falling list from {T_MAX:,} or less to 1 or more"
            require(falls, "timesteps", self.timesteps, allowed)
            object.__setattr__(self, "steps", len(self.timesteps))
        check(self)
        if self.labels is not None:
            ok = whole_numbers(self.labels, 0, 9999) and len(self.labels) > 0
            ok = ok and len(set(self.labels)) == len(self.labels)
            require(ok, "labels", self.labels, "numbers of classes, each once")

    def label_of_each(self) -> list[int] | None:
        """The label of each of the n pictures. None is the null class for all of them."""
        if self.labels is None:
            return None
        return [self.labels[(self.seed + k) % len(self.labels)] for k in range(self.n)]

    def but(self, **changes: Any) -> SampleConfig:
        """A copy with other settings. New steps, spacing or start replace a list of timesteps."""
        way = ("steps", "spacing", "start")
        if any(changes.get(k, getattr(self, k)) != getattr(self, k) for k in way):
            changes = {"timesteps": None, **changes}
        return dataclasses.replace(self, **changes)
