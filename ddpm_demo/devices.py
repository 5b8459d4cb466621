"""Which device to use, and where bfloat16 pays."""

from __future__ import annotations

import torch

from .config import require


def pick(name: str = "auto") -> torch.device:
    """A device by name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: no such device here.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    here = [k for k, there in found.items() if there]
    if name == "auto":
        return torch.device(here[0])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    ok = kind in here and (name == kind or (index.isdecimal() and int(index) < count))
    require(ok, "device", name, "auto or one of " + ", ".join(here))
    return torch.device(name)


def bf16_pays(device: torch.device | str) -> bool:
    """Whether bfloat16 is faster there: on newer GPUs, and on CPUs with AMX or AVX512-BF16."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
