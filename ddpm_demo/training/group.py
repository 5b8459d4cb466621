"""Several processes that train one network together."""

from __future__ import annotations

import os

import torch
from torch import nn

from ddpm_demo.nn.unet import UNet


def join(model: UNet, device: torch.device) -> tuple[int, int, nn.Module]:
    """Rank, number of processes, and the network wrapped for them.

    `torchrun` and `accelerate launch` both describe the group in the environment; alone, there is
    nothing to join.
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
    """Each value's mean over the processes.

    Clocks and signals differ between them, but all must end, and set the learning rate, alike.
    """
    if world == 1:
        return list(values)
    import torch.distributed as dist

    shared = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(shared)
    return (shared / world).tolist()
