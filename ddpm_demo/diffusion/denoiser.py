"""From what the network predicts to what samplers want: x0_hat and eps_hat.

This is the only place that knows whether a network predicts eps, x0 or v, and the only one that
clips x0_hat, guides by class, or chooses the precision of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.nn.unet import UNet


class Prediction(NamedTuple):
    """x0_hat and eps_hat for one x_t, both (B, C, H, W).

    Together they make x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.
    """

    x0: Tensor
    eps: Tensor


class Denoise(Protocol):
    """What a sampler needs: a schedule, and a call that takes x_t and one t for each picture."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction: ...


class Guides(Protocol):
    """The part of `walk.Intervention` that changes guidance."""

    def guidance(self, t: int, w: float) -> float: ...

    def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor: ...


def split(raw: Tensor, x_t: Tensor, alpha_bar: Tensor, predict: str) -> Prediction:
    """Turn the network's raw output into x0_hat and eps_hat.

    The output is eps (Ho et al. 2020, eq. 15), x0, or
    v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, section 4).

    Args:
        alpha_bar: (B, 1, 1, 1), less than 1.
        predict: "eps", "x0" or "v".
    """
    signal, sigma = alpha_bar.sqrt().to(x_t.dtype), (1 - alpha_bar).sqrt().to(x_t.dtype)
    if predict == "eps":
        return Prediction((x_t - sigma * raw) / signal, raw)
    if predict == "x0":
        return Prediction(raw, (x_t - signal * raw) / sigma)
    return Prediction(signal * x_t - sigma * raw, signal * raw + sigma * x_t)


class Denoiser:
    """A network that answers as `Denoise`.

    Args:
        model: the network.
        config: the diffusion process that the network was trained for.
        clip: clip x0_hat to [-1, 1], and compute eps_hat from the clipped picture. Without
            clipping, the first step of a cosine schedule multiplies errors by about 32.
        y: (B,) class labels, or None for the null class.
        guidance: the scale w of classifier-free guidance, eps = eps_null + w (eps_y - eps_null).
            w = 1 is plain conditioning (Ho & Salimans 2022, eq. 6, where w is one less).
        bf16: run the network under bfloat16 autocast.
    """

    interventions: Sequence[Guides] = ()  # set for one run, whose pictures share one t in each call

    def __init__(
        self,
        model: UNet,
        config: DiffusionConfig,
        *,
        clip: bool = True,
        y: Tensor | None = None,
        guidance: float = 1.0,
        bf16: bool = False,
    ) -> None:
        self.model, self.config = model, config
        self.schedule = Schedule.from_config(config)
        self.clip, self.y, self.guidance, self.bf16 = clip, y, guidance, bf16

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        """Predict x0 and eps.

        Args:
            x_t: (B, C, H, W).
            t: (B,) in 1..T, one for each picture.

        Raises:
            FloatingPointError: the network returned NaN or infinity.
        """
        raw = self._run(x_t, t - 1)
        if not bool(raw.isfinite().all()):
            raise FloatingPointError(
                "The network predicted NaN or infinity: its weights are broken."
            )
        alpha_bar = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        prediction = split(raw, x_t, alpha_bar, self.config.predict)
        if not self.clip:
            return prediction
        return split(prediction.x0.clamp(-1, 1), x_t, alpha_bar, "x0")

    def _run(self, x_t: Tensor, t: Tensor) -> Tensor:
        t, w = t.to(x_t.device), self.guidance
        for each in self.interventions:
            w = each.guidance(int(t[0]) + 1, w)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.bf16):
            if self.y is None or w == 1:
                (raw,) = self._answers(x_t, t, self.y)
            else:
                null = torch.full_like(self.y, self.model.config.num_classes)
                uncond, cond = (a.float() for a in self._answers(x_t, t, null, self.y))
                raw = uncond + w * (cond - uncond)
                for each in self.interventions:
                    raw = each.guided(int(t[0]) + 1, uncond, cond, raw)
        return raw.to(x_t.dtype)

    def _answers(self, x_t: Tensor, t: Tensor, *labels: Tensor | None) -> list[Tensor]:
        """The network's outputs for each set of labels, all from one forward pass.

        Where a run forks, all pictures are the same; the network then computes only one of them.
        """
        known = [y for y in labels if y is not None]
        same = all(bool((a[1:] == a[:1]).all()) for a in (x_t, t, *known))
        n = 1 if same else len(x_t)
        y = torch.cat([label[:n] for label in known]) if known else None
        x, ts = x_t[:n], t[:n]
        if len(labels) > 1:
            x, ts = x.repeat(len(labels), 1, 1, 1), ts.repeat(len(labels))
        answers = self._network(x, ts, y).chunk(len(labels))
        return [answer.expand_as(x_t) for answer in answers]

    def _network(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The forward pass. `inference.batching` replaces it to share one pass between runs."""
        return self.model(x_t, t, y)
