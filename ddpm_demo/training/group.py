"""Lets several processes train one network together."""

from __future__ import annotations

import os

import torch
from torch import nn

from ddpm_demo.nn.unet import UNet


def join(model: UNet, device: torch.device) -> tuple[int, int, nn.Module]:
    """Join the group of processes. Returns the rank, their number, and the wrapped network.

    `torchrun` and `accelerate launch` describe the group in the environment. A process that runs
    alone joins nothing.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return 0, 1, model
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    ids = [device.index] if device.type == "cuda" else None
    return dist.get_rank(), world, nn.parallel.DistributedDataParallel(model, device_ids=ids)


def mean(values: tuple[float, ...], world: int, device: torch.device) -> list[float]:
    """The mean of each value over all processes.

    Clocks and signals differ between processes. With the mean, all of them end at the same step and
    use the same learning rate.
    """
    if world == 1:
        return list(values)
    import torch.distributed as dist

    shared = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    return (shared / world).tolist()
