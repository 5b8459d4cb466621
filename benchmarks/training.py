"""Compares pictures a second in training with diffusers and denoising-diffusion-pytorch.

    pip install -r requirements-dev.txt denoising-diffusion-pytorch
    python -m benchmarks.training

Each trains its own U-Net in its default settings (the others in fp32, with Adam or AdamW). The
width of the others is chosen so that their forward FLOPs are closest to ours, and the rest of the
difference is scaled out. Our step does more: it draws and flips pictures, clips gradients, and
keeps the EMA. The three take turns, and medians are compared. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig
from ddpm_demo.data import Images
from ddpm_demo.machine.devices import bf16_pays, keep_memory
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.trainer import Machine, Trainer

try:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from diffusers import DDPMScheduler, UNet2DModel
except ImportError as error:
    sys.exit(f"{error}: this needs pip install -r requirements-dev.txt denoising-diffusion-pytorch")

SIZE = 32


def gflop(net: nn.Module, *inputs: Tensor) -> float:
    """GFLOP of the forward pass of one picture."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*inputs)
    return counter.get_total_flops() / len(inputs[0]) / 1e9


def ours(batch: int) -> tuple[float, Callable[[], object]]:
    pictures = torch.randint(0, 256, (4 * batch, 3, SIZE, SIZE), dtype=torch.uint8)
    data = Images(pictures, torch.zeros(len(pictures), dtype=torch.long))
    net, device = UNet(ModelConfig()), torch.device("cpu")
    config = TrainConfig(batch_size=batch)
    run = Trainer(net, DiffusionConfig(), config, data, None, Machine(device, bf16_pays(device)))
    cost = gflop(net, torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long))
    return cost, lambda: run.advance(config.lr)


def diffusers(batch: int, width: int) -> tuple[float, Callable[[], object]]:
    widths = (width, 2 * width, 3 * width, 4 * width)  # in the ratios of its default
    groups = 32 if width % 32 == 0 else 16
    net = UNet2DModel(sample_size=SIZE, block_out_channels=widths, norm_num_groups=groups)
    schedule, optimizer = DDPMScheduler(), torch.optim.AdamW(net.parameters())

    def step() -> None:
        x_0, eps = torch.randn(2, batch, 3, SIZE, SIZE)
        t = torch.randint(0, 1000, (batch,))
        F.mse_loss(net(schedule.add_noise(x_0, eps, t), t).sample, eps).backward()
        optimizer.step()
        optimizer.zero_grad()

    return gflop(net, torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long)), step


def lucidrains(batch: int, width: int) -> tuple[float, Callable[[], object]]:
    net = Unet(dim=width)
    diffusion = GaussianDiffusion(net, image_size=SIZE)
    optimizer = torch.optim.Adam(diffusion.parameters())

    def step() -> None:
        diffusion(torch.rand(batch, 3, SIZE, SIZE)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return gflop(net, torch.randn(1, 3, SIZE, SIZE), torch.zeros(1)), step


def closest(
    make: Callable[[int, int], tuple[float, Callable[[], object]]], batch: int, wanted: float
) -> tuple[float, Callable[[], object]]:
    """Choose the width, a multiple of 16, whose forward pass is closest to `wanted` GFLOP."""
    made = [make(batch, width) for width in (32, 48, 64, 80, 96)]
    return min(made, key=lambda m: abs(math.log(m[0] / wanted)))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rounds", type=int, default=5)
    o = p.parse_args()
    keep_memory()  # as training does; it makes the others faster, too
    mine = ours(o.batch)
    sides = {
        "ddpm_demo": mine,
        "diffusers UNet2DModel": closest(diffusers, o.batch, mine[0]),
        "denoising-diffusion-pytorch": closest(lucidrains, o.batch, mine[0]),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(o.rounds + 1):
        for name, (_, step) in sides.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    low = "bf16" if bf16_pays("cpu") else "fp32"
    print(f"batch {o.batch}, {torch.get_num_threads()} threads, {SIZE} x {SIZE} RGB, ours in {low}")
    print("| | GFLOP forward | images/s | images/s at our GFLOP | ours is |")
    print("| :-- | --: | --: | --: | --: |")
    own = 0.0
    for name, (cost, _) in sides.items():
        rate = o.batch / statistics.median(times[name][1:])
        equal = rate * cost / mine[0]
        own = own or equal
        print(
            f"| {name} | {cost:.2f} | {rate:.1f} | {equal:.1f} | {own / equal:.2f} times as fast |"
        )


if __name__ == "__main__":
    main()
