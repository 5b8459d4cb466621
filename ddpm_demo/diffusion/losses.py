"""What training minimises: a distance to the target, weighted by t."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_demo.diffusion.schedule import Schedule

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,  # L_simple (Ho et al. 2020, eq. 14)
    "l1": F.l1_loss,  # the likelihood of Laplace noise
    "smooth_l1": F.smooth_l1_loss,  # quadratic within 1 of the target, linear beyond
    "huber": F.huber_loss,  # with its threshold of 1, the same as smooth_l1; both names are in use
}


def target(predict: str, x_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The output that the network should learn: eps, x0, or v (Salimans & Ho 2022).

    Args:
        predict: "eps", "x0" or "v".
        x_0, eps: (B, C, H, W).
        alpha_bar: (B, 1, 1, 1).
    """
    if predict == "eps":
        return eps
    if predict == "x0":
        return x_0
    return alpha_bar.sqrt().to(eps.dtype) * eps - (1 - alpha_bar).sqrt().to(eps.dtype) * x_0


def weights(weighting: str, schedule: Schedule, t: Tensor, predict: str) -> Tensor:
    """(B,) weights, one for the loss of each picture.

    "none" weights all pictures alike. "min-snr" is min(SNR, 5) for x0; divide that by SNR for eps,
    and by SNR + 1 for v (Hang et al. 2023, section 3.4). It keeps the nearly clean steps, where eps
    is hard to see, from dominating the gradient.
    """
    if weighting == "none":
        return torch.ones(len(t), device=t.device)
    snr = schedule.snr[t.cpu()]
    capped = snr.clamp(max=5.0)
    scale = {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[predict]
    return (capped / scale).float().to(t.device)


def per_picture(loss: str, prediction: Tensor, wanted: Tensor) -> Tensor:
    """(B,) the mean loss over each picture's pixels."""
    return LOSSES[loss](prediction.float(), wanted, reduction="none").flatten(1).mean(dim=1)
