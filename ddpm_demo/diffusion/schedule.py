"""The variance schedule, how much noise is in x_t at each t, and the noise itself.

The forward process is q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I) (Ho et al. 2020,
eq. 2). Its closed form is q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I) (eq. 4),
where alpha_t = 1 - beta_t and alpha_bar_t = prod_{s<=t} alpha_s.

Steps are counted as in the paper, from t = 1 to T; t = 0 is the clean picture. So every table has
T + 1 entries, with beta_0 = 0 and alpha_bar_0 = 1. Tables are float64.

Noise has mean 0 and variance 1. Each picture has its own random generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ddpm_demo.config import (
    NOISES,
    SPACINGS,
    DiffusionConfig,
    SampleConfig,
    SettingError,
    number,
    one_of,
)

# The least alpha_bar. Sensible betas never reach it, and its root is still above 0 in float32.
FLOOR = 1e-60


class Schedule:
    """The tables for t = 0..T, computed from beta_1..beta_T.

    Args:
        beta: (T,) variances of the noise added at each step, each in (0, 1).

    Raises:
        ValueError: a beta outside (0, 1).
    """

    def __init__(self, beta: Tensor) -> None:
        beta = beta.to(torch.float64)
        wrong = beta[~((beta > 0) & (beta < 1))]
        if len(wrong):
            raise SettingError("beta", wrong[0].item(), "above 0 and below 1")
        self.beta = torch.cat([beta.new_zeros(1), beta])
        self.alpha = 1 - self.beta
        self.alpha_bar = self.alpha.cumprod(0).clamp(min=FLOOR)

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Linear in beta (Ho et al. 2020, section 4)."""
        return cls.from_config(DiffusionConfig(T, "linear", beta_start, beta_end))

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008) -> Schedule:
        """The cosine schedule, alpha_bar_t = f(t) / f(0) (Nichol & Dhariwal 2021, eq. 17).

        f(t) = cos^2((t/T + s) / (1 + s) * pi/2), and beta is at most 0.999.
        """
        DiffusionConfig(T=T)
        f = ((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2).cos() ** 2
        return cls((1 - f[1:] / f[:-1]).clamp(max=0.999))

    @classmethod
    def from_config(cls, config: DiffusionConfig) -> Schedule:
        if config.schedule == "cosine":
            return cls.cosine(config.T)
        root = 2 if config.schedule == "scaled_linear" else 1  # linear in sqrt(beta)
        ends = config.beta_start ** (1 / root), config.beta_end ** (1 / root)
        return cls(torch.linspace(*ends, config.T, dtype=torch.float64) ** root)

    @property
    def T(self) -> int:
        return len(self.beta) - 1

    @cached_property
    def snr(self) -> Tensor:
        """(T + 1,) signal-to-noise ratio alpha_bar / (1 - alpha_bar); infinite at t = 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def beta_tilde(self) -> Tensor:
        """(T + 1,) variance of q(x_{t-1} | x_t, x_0) (eq. 7); 0 at t = 0 and 1."""
        tilde = torch.zeros_like(self.beta)
        tilde[1:] = (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:]) * self.beta[1:]
        return tilde

    def posterior(self, t: int, s: int | None = None) -> tuple[float, float, float]:
        """The posterior q(x_s | x_t, x_0) for s < t; by default s is t - 1 (eq. 6 and 7).

        Returns:
            (a, b, var): the mean is `a * x_0 + b * x_t`, and the variance is `var`.
        """
        s = t - 1 if s is None else s
        ab_t, ab_s = float(self.alpha_bar[t]), float(self.alpha_bar[s])
        beta = 1 - ab_t / ab_s if s else 1 - ab_t
        a = math.sqrt(ab_s) * beta / (1 - ab_t)
        b = math.sqrt(1 - beta) * (1 - ab_s) / (1 - ab_t)
        return a, b, (1 - ab_s) / (1 - ab_t) * beta

    def q_sample(self, x_0: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """Noise a picture: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (eq. 4).

        Args:
            x_0: (B, C, H, W) in [-1, 1].
            t: (B,) steps in 0..T, or one step for all pictures.
            eps: noise with mean 0 and variance 1, shaped like `x_0`.
        """
        ab = self.at(self.alpha_bar, t, x_0)
        return ab.sqrt().to(x_0.dtype) * x_0 + (1 - ab).sqrt().to(x_0.dtype) * eps

    def q_step(self, x: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
        """Go one step of the forward process, from x_{t-1} = x to x_t (eq. 2).

        Args:
            t, eps: as in `q_sample`.
        """
        beta = self.at(self.beta, t, x)
        return (1 - beta).sqrt().to(x.dtype) * x + beta.sqrt().to(x.dtype) * eps

    def at(self, table: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
        """`table[t]` as float64 on x's device, shaped to multiply x: (B, 1, 1, 1).

        Raises:
            ValueError: a t is outside 0..T.
        """
        t = torch.as_tensor(t).cpu()
        if bool(((t < 0) | (t > self.T)).any()):
            raise SettingError("t", t.tolist(), f"from 0 to {self.T}")
        value = table[t].reshape(-1, *[1] * (x.ndim - 1))
        # MPS has no float64. The result is rounded to float32 anyway.
        return value.float().to(x.device) if x.device.type == "mps" else value.to(x.device)

    def chosen(self, run: SampleConfig) -> list[int]:
        """The timesteps of a run: its own list, or else those from its steps, spacing and start.

        Raises:
            ValueError: the list starts above T; `timesteps` says what else is refused.
        """
        if run.timesteps is None:
            return self.timesteps(run.steps, run.spacing, run.start)
        number("first of the timesteps", run.timesteps[0], 1, self.T, whole=True)
        return list(run.timesteps)

    def timesteps(
        self, steps: int, spacing: str = "uniform", start: int | None = None
    ) -> list[int]:
        """A falling list of `steps` timesteps. It begins at `start`, which is T by default.

        For eps-prediction on the cosine schedule, a start below T helps. Near T, a small error of
        eps_hat is divided by sqrt(alpha_bar), which is 5e-5 at T = 1000. So x0_hat is noise clipped
        to -1 and 1, and a run of few steps keeps much of that noise.

        In the spacings below, T stands for the start.

        uniform: equal gaps from T to 1, both included.
        quadratic: gaps that grow with t, so that more steps are spent where the picture is nearly
            clean (Song et al. 2020, appendix D.2).
        trailing: T, then down by T/steps (Lin et al. 2023, table 2).
        leading: up from 1 by T // steps. Many published models are sampled this way. The list
            doesn't contain T.
        logsnr: equal gaps in the log of the signal-to-noise ratio, from its value at T to its value
            at 1. The last of these gaps stands for the step to the clean picture.
        karras: like logsnr, but with equal gaps in sigma^(1/7), where sigma^2 = 1 / SNR. More steps
            are spent at high noise than with logsnr (Karras et al. 2022, eq. 5).

        Raises:
            ValueError: `start` is outside 1..T, `steps` is outside 1..start, or the spacing is
                unknown.
        """
        T = self.T if start is None else start
        number("start", T, 1, self.T, whole=True)
        number("steps", steps, 1, T, whole=True)
        one_of("spacing", spacing, SPACINGS)
        if spacing == "trailing":
            return [round(T - i * T / steps) for i in range(steps)]
        if spacing == "leading":
            return [1 + i * (T // steps) for i in reversed(range(steps))]
        if steps == 1:
            return [T]
        part = [i / (steps - 1) for i in range(steps)]
        if spacing == "uniform":
            gap = (T - 1) / (steps - 1)
            return [1 + round(i * gap) for i in range(steps)][::-1]  # ties as diffusers' linspace
        if spacing == "quadratic":
            return _apart([round((1 + (math.sqrt(T) - 1) * p) ** 2) for p in part], T)
        return _apart(self._by_noise(steps, T, spacing), T)

    def _by_noise(self, steps: int, T: int, spacing: str) -> list[int]:
        """The t for "logsnr" and "karras", rising, with T as the last (see `timesteps`)."""
        snr = self.snr[1 : T + 1]
        height = -snr.log() if spacing == "logsnr" else snr ** (-1 / 14)  # both rise with t
        ends = float(height[0]), float(height[-1])
        wanted = torch.linspace(*ends, steps + 1, dtype=height.dtype)[1:]
        above = torch.searchsorted(height, wanted).clamp(1, T - 1)
        nearer_below = wanted - height[above - 1] < height[above] - wanted
        return [*(1 + above - nearer_below.long()).tolist()[:-1], T]


def _apart(up: list[int], T: int) -> list[int]:
    """Make rising timesteps distinct after rounding, within 1..T, and return them falling."""
    last = 0
    for i, t in enumerate(up):
        up[i] = last = min(max(t, last + 1), T - (len(up) - 1 - i))
    return up[::-1]


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw N(0, 1) noise of the given shape, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def laplace(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw Laplace noise of the given shape, on the generator's device.

    Its scale is 1/sqrt(2), so that its variance is 1. DDPM's posterior is exact for Gaussian noise
    only. With Laplace noise, each step has the right mean and variance, but another shape.
    """
    # We subtract two exponentials of rate sqrt(2). The inverse CDF could run into log(0).
    pair = torch.empty(2, *shape, device=generator.device).exponential_(
        math.sqrt(2), generator=generator
    )
    return pair[0] - pair[1]


KINDS: dict[str, Callable[[Sequence[int], torch.Generator], Tensor]] = {
    "gaussian": gaussian,
    "laplace": laplace,
}
assert tuple(KINDS) == NOISES


class Noise:
    """A stream of noise for each picture. So no picture depends on the rest of its batch.

    Args:
        kind: "gaussian" or "laplace".
        seeds: one seed for each picture of the batch. A run with seed s gives picture k the seed
            s + k, so that each picture can also be made alone.

    The generators are always on the CPU, so that a seed gives the same noise on every device.
    """

    def __init__(self, kind: str, seeds: Sequence[int]) -> None:
        one_of("noise", kind, NOISES)
        self.kind, self._draw = kind, KINDS[kind]
        self.drawn = 0  # the number of calls of `draw` so far
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Draw (B, C, H, W) noise in float32 on the CPU.

        Raises:
            ValueError: B is not the number of seeds.
        """
        if shape[0] != len(self):
            raise ValueError(f"Noise has {len(self)} seeds, but the batch has {shape[0]} pictures.")
        self.drawn += 1
        return torch.stack([self._draw(shape[1:], g) for g in self._generators])

    def skip(self, drawn: int, shape: Sequence[int]) -> None:
        """Advance to the state after `drawn` draws of this shape, so that a stopped run can go on.

        Does nothing if there were already as many draws: a branch may come with new noise.
        """
        while self.drawn < drawn:
            self.draw(shape)

    def like(self, x: Tensor) -> Tensor:
        """Draw noise with the shape, device and dtype of x."""
        return self.draw(x.shape).to(x)
