"""What a model, a diffusion process and a training run are made of.

The command line, the app and the checkpoints all read their choices and defaults from these frozen
dataclasses. A value that makes no sense raises `ValueError` with one sentence that names the value
and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

SCHEDULES = ("linear", "cosine", "scaled_linear")
NOISES = ("gaussian", "laplace")
PREDICTIONS = ("eps", "x0", "v")
LOSSES = ("mse", "l1", "smooth_l1", "huber")
WEIGHTINGS = ("none", "min-snr")
NORMS = ("group", "layer")
SAMPLER_NAMES = ("ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
SPACINGS = ("uniform", "quadratic", "trailing", "leading", "logsnr", "karras")
VARIANCES = ("beta_tilde", "beta")
T_MIN, T_MAX = 10, 4000
BETA_MIN, BETA_MAX = 1e-8, 0.999  # beyond, float32 loses the noise or the signal
SEED_MAX = 2**32 - 1

C = TypeVar("C")


class SettingError(ValueError):
    """A setting has a value that is not allowed; the message is one sentence."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"{self.name} is {self.value!r}; allowed is {self.allowed}."


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise `SettingError` unless `ok`."""
    if not ok:
        raise SettingError(name, value, allowed)


def number(
    name: str, value: object, low: float, high: float, *, whole: bool = False, above: bool = False
) -> None:
    """Raise `ValueError` unless `value` is a number from `low` to `high`.

    Args:
        whole: only whole numbers.
        above: `low` itself is not allowed.
    """
    kinds = (int,) if whole else (int, float)
    ok = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    what = ("a whole number " if whole else "") + ("above" if above else "from")
    require(ok and not (above and value == low), name, value, f"{what} {low:,} to {high:,}")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    require(value in allowed, name, value, "one of " + ", ".join(allowed))


def whole_numbers(values: object, low: int, high: int) -> bool:
    """Whether `values` is a tuple of whole numbers from `low` to `high`."""
    return isinstance(values, tuple) and all(type(v) is int and low <= v <= high for v in values)


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Build the dataclass `cls` from JSON values; an unknown key is an error."""
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if cls is SampleConfig and "label" in values:  # in checkpoints from before labels took turns
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

    Widths of the levels are `width * multipliers[i]`; level i works at `size / 2**i` pixels.
    """

    size: int = 32  # pixels a side that it is made for; any H x W runs
    channels: int = 3  # of the pictures: 1 or 3
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1  # residual blocks a level on the way down; one more on the way up
    attention: tuple[int, ...] = (8,)  # resolutions with self-attention after each block
    mid_attention: bool = True
    head_dim: int | None = None  # channels per attention head; None: one head
    norm: str = "layer"  # "group", or "layer": over channels, which is free in channels_last
    groups: int = 32
    norm_eps: float = 1e-6
    dropout: float = 0.0
    scale_shift: bool = True  # time embedding as scale and shift; False: added (Ho et al.)
    time_dim: int | None = 512  # width of the time embedding; None: 4 * width of the first level
    freq_shift: int = 0  # of the sinusoids: 1 in Ho et al.'s code
    flip_sin_to_cos: bool = False  # cosines before sines
    downsample: str = "conv"  # "conv" (stride 2), or "resnet": in a residual block after attention
    upsample: str = "conv"  # "conv" (nearest, then 3x3), or "resnet" as above
    down_padding: int = 1  # of the stride-2 convolutions; 0: pad right and bottom (Ho et al.)
    num_classes: int = 0  # 0: unconditional; n: labels 0..n-1, and n is the null class

    def __post_init__(self) -> None:
        number("size", self.size, 8, 1024, whole=True)
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        number("width", self.width, 8, 1024, whole=True)
        ok = whole_numbers(self.multipliers, 1, 16) and 1 <= len(self.multipliers) <= 8
        require(ok, "multipliers", self.multipliers, "1 to 8 levels, each 1 to 16 times the width")
        number("blocks", self.blocks, 1, 8, whole=True)
        ok = whole_numbers(self.attention, 1, 1024)
        require(ok, "attention", self.attention, "resolutions from 1 to 1024")
        one_of("norm", self.norm, NORMS)
        number("groups", self.groups, 1, 16_384, whole=True)
        number("norm_eps", self.norm_eps, 0, 1, above=True)
        if self.norm == "group":
            bad = [w for w in self.widths if w % self.groups]
            require(not bad, "groups", self.groups, f"a divisor of every width, {self.widths}")
        if self.head_dim is not None:
            number("head_dim", self.head_dim, 1, 16_384, whole=True)
            require(
                not any(w % self.head_dim for w in self.attention_widths),
                "head_dim",
                self.head_dim,
                f"a divisor of every width that has attention, {self.attention_widths}",
            )
        number("dropout", self.dropout, 0, 0.95)
        if self.time_dim is not None:
            number("time_dim", self.time_dim, 1, 65_536, whole=True)
        number("freq_shift", self.freq_shift, 0, 1)
        require(self.mid_attention in (True, False), "mid_attention", self.mid_attention, "a bool")
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
        """Widths of the places that have attention, the middle included."""
        levels = [w for i, w in enumerate(self.widths) if self.has_attention(i)]
        return tuple(levels + [self.widths[-1]] * self.mid_attention)

    def has_attention(self, level: int) -> bool:
        return -(-self.size // 2**level) in self.attention


@dataclass(frozen=True)
class DiffusionConfig:
    """The process: schedule of variances, kind of noise, and what the network predicts."""

    T: int = 1000
    schedule: str = "linear"
    beta_start: float = 1e-4  # linear only
    beta_end: float = 0.02  # linear only
    noise: str = "gaussian"
    predict: str = "eps"

    def __post_init__(self) -> None:
        number("T", self.T, T_MIN, T_MAX, whole=True)
        one_of("schedule", self.schedule, SCHEDULES)
        number("beta_start", self.beta_start, BETA_MIN, BETA_MAX)
        number("beta_end", self.beta_end, self.beta_start, BETA_MAX)
        one_of("noise", self.noise, NOISES)
        one_of("predict", self.predict, PREDICTIONS)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Its length is the first reached of `images`, `epochs` and `minutes`."""

    dataset: str = "mnist"  # mnist, fashion_mnist, cifar10, folder:PATH
    only: str | None = None  # the one class of it that is seen; None: all
    loss: str = "mse"
    weighting: str = "none"  # or min-snr with gamma 5 (Hang et al. 2023, eq. 6)
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 300  # steps of linear learning rate warm-up
    decay: float = 0.2  # last part of the run over which the learning rate falls to 0
    weight_decay: float = 0.0
    beta2: float = 0.99
    grad_clip: float = 1.0
    ema: float = 0.9995
    label_dropout: float = 0.15  # share of labels replaced by the null class
    flip: bool | None = None  # horizontal flips; None: where the data's meaning survives them
    images: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    seed: int = 0
    preview_every: int = 50_000  # images between previews, held-out losses and saved states

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)
        one_of("weighting", self.weighting, WEIGHTINGS)
        number("batch_size", self.batch_size, 1, 65_536, whole=True)
        number("lr", self.lr, 0, 0.1, above=True)
        number("warmup", self.warmup, 0, 10**6, whole=True)
        number("decay", self.decay, 0, 1)
        number("weight_decay", self.weight_decay, 0, 1)
        number("beta2", self.beta2, 0, 0.99999)
        number("grad_clip", self.grad_clip, 0, 10**6, above=True)
        number("ema", self.ema, 0, 0.999999)
        number("label_dropout", self.label_dropout, 0, 1)
        number("seed", self.seed, 0, SEED_MAX, whole=True)
        number("preview_every", self.preview_every, 1, 10**12, whole=True)
        for name in ("images", "epochs", "minutes"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), 0, 10**12, above=True)

    def require_length(self) -> None:
        """Raise `ValueError` unless the run has an end."""
        ends = bool(self.images or self.epochs or self.minutes)
        require(ends, "length of the run", None, "a number of images, epochs or minutes")


@dataclass(frozen=True)
class SampleConfig:
    """One run of a sampler. Picture k has the seed `seed + k`.

    The picture of seed s has the class `labels[s % len(labels)]`, in whichever batch it is drawn.
    """

    sampler: str = "ddim"
    steps: int = 50
    n: int = 16
    seed: int = 0
    spacing: str = "trailing"
    variance: str = "beta_tilde"  # ddpm only
    eta: float = 0.0  # ddim only
    clip: bool = True
    labels: tuple[int, ...] | None = None  # classes that take turns; None: the null class
    guidance: float = 1.0
    start: int | None = None  # t of the first step; None: T
    timesteps: tuple[int, ...] | None = None  # falling; then steps, spacing and start don't count

    def __post_init__(self) -> None:
        if self.timesteps is not None:
            falls = whole_numbers(self.timesteps, 1, T_MAX) and bool(self.timesteps)
            falls = falls and all(a > b for a, b in pairwise(self.timesteps))
            allowed = f"a falling list from {T_MAX:,} or less to 1 or more"
            require(falls, "timesteps", self.timesteps, allowed)
            object.__setattr__(self, "steps", len(self.timesteps))
        one_of("sampler", self.sampler, SAMPLER_NAMES)
        number("steps", self.steps, 1, T_MAX, whole=True)
        number("n", self.n, 1, 100_000, whole=True)
        number("seed", self.seed, 0, SEED_MAX, whole=True)
        one_of("spacing", self.spacing, SPACINGS)
        one_of("variance", self.variance, VARIANCES)
        number("eta", self.eta, 0, 1)
        if self.labels is not None:
            ok = whole_numbers(self.labels, 0, 9999) and len(self.labels) > 0
            ok = ok and len(set(self.labels)) == len(self.labels)
            require(ok, "labels", self.labels, "numbers of classes, each once")
        number("guidance", self.guidance, 0, 20)
        if self.start is not None:
            number("start", self.start, 1, T_MAX, whole=True)

    def label_of_each(self) -> list[int] | None:
        """The label of each of the n pictures; None: the null class."""
        if self.labels is None:
            return None
        return [self.labels[(self.seed + k) % len(self.labels)] for k in range(self.n)]

    def but(self, **changes: Any) -> SampleConfig:
        """This run with other settings. Other steps, spacing or start end a list of t."""
        way = ("steps", "spacing", "start")
        if any(changes.get(k, getattr(self, k)) != getattr(self, k) for k in way):
            changes = {"timesteps": None, **changes}
        return dataclasses.replace(self, **changes)
