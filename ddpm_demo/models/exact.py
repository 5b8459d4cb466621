"""The exact denoiser of a finite set of pictures. The program can sample it like any other model.

If the data are n pictures and nothing else, the best denoiser is known. It is the mean of the
pictures, each weighted by how likely x_t comes from it (Karras et al. 2022, appendix B.3, eq. 57).
A network that fitted these data perfectly would be this function. It could only copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddpm_demo.config import DiffusionConfig, ModelConfig, number, require
from ddpm_demo.data.packed import mnist
from ddpm_demo.diffusion import Schedule
from ddpm_demo.models.checkpoint import Checkpoint

PREFIX = "exact:"
MOST = 10_000  # the most pictures in a set


class Exact(nn.Module):
    """Predicts x0 from x_t, for one finite set of pictures.

    Args:
        pictures: (N, C, H, W) in [-1, 1].
        process: the diffusion process; it has to predict x0.
    """

    def __init__(self, pictures: Tensor, process: DiffusionConfig) -> None:
        super().__init__()
        _, channels, size, _ = pictures.shape
        self.config = ModelConfig(size=size, channels=channels)
        self.pictures = nn.Parameter(pictures.float(), requires_grad=False)
        self.alpha_bar = Schedule.from_config(process).alpha_bar

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W); t: (B,) from 0 to T - 1, as for a network. Returns x0_hat."""
        shape, x = x.shape, x.double().flatten(1)  # logits reach 10^7 at t = 1
        pictures = self.pictures.double().flatten(1)
        ab = self.alpha_bar[t.cpu() + 1].to(x).view(-1, 1)
        logits = ab.sqrt() * (x @ pictures.T) - ab / 2 * pictures.square().sum(1)
        weights = (logits / (1 - ab)).softmax(1)
        return (weights @ pictures).float().view(shape)


def exact(name: str) -> Checkpoint:
    """Make the model of a name. "exact:mnist:100" is for the first 100 training pictures.

    Raises:
        ValueError: the data set is not mnist, or the number is not allowed.
    """
    _, dataset, count = [*name.split(":"), "", ""][:3]
    require(dataset == "mnist", "data of the exact denoiser", dataset, "mnist")
    n = int(count) if count.isascii() and count.isdecimal() and len(count) < 9 else count
    number("pictures of the exact denoiser", n, 1, MOST, whole=True)
    process = DiffusionConfig(schedule="cosine", predict="x0")
    pictures = mnist().batch(torch.arange(int(n)))
    info = {"dataset": "mnist", "images": n, "sample": {"sampler": "ddim", "steps": 20}}
    return Checkpoint(Exact(pictures, process).eval(), process, info, name)  # type: ignore[arg-type]
