"""Choose a device, find out if bfloat16 is faster on it, and set up a CPU's memory and cores."""

from __future__ import annotations

import ctypes
import threading

import torch

from ddpm_demo.config import either, require


def here() -> list[str]:
    """The kinds of devices of this machine, the fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [k for k, there in found.items() if there]


def pick(name: str = "auto") -> torch.device:
    """A device by its name. "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    kinds = here()
    if name == "auto":
        return torch.device(kinds[0])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    ok = kind in kinds and (name == kind or (index.isdecimal() and int(index) < count))
    require(ok, "device", name, either(["auto", *kinds]))
    return torch.device(name)


def bf16_pays(device: torch.device | str) -> bool:
    """True if bfloat16 is faster there: on newer GPUs, and on CPUs with AMX or AVX512-BF16."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def keep_memory() -> None:
    """Tell glibc to keep memory that a step frees, for the next step. Without glibc, do nothing.

    By default, glibc returns large blocks to the system at once. To get them back, page by page,
    takes a tenth of a step's time. All threads use one pool here, because the separate pools of
    later threads would return every block above 64 MB.
    """
    trim, mmap, arenas = -1, -3, -8  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(trim, 2**30)
        libc.mallopt(mmap, 2**25)  # the largest value that glibc allows
        libc.mallopt(arenas, 1)
    except (AttributeError, OSError, TypeError):
        return


def claim_cores(n: int) -> None:
    """Run this thread's operators on n cores, and those of later threads on one core.

    Each thread that uses several cores has a team of OpenMP threads. Two teams have more threads
    than there are cores, so their threads sleep while they wait, and a step takes a fifth longer.
    """
    torch.get_num_threads()  # without this call, the first operator would replace n by 1
    torch.set_num_threads(n)
    later = threading.Thread(target=torch.set_num_threads, args=(1,))
    later.start()
    later.join()
