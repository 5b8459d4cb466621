"""Which device to use, where bfloat16 pays, and how to have a CPU's memory and cores to oneself."""

from __future__ import annotations

import ctypes
import threading

import torch

from ddpm_demo.config.setting import require


def here() -> list[str]:
    """Kinds of devices that this machine has, the fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [k for k, there in found.items() if there]


def pick(name: str = "auto") -> torch.device:
    """A device by name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: no such device here.
    """
    kinds = here()
    if name == "auto":
        return torch.device(kinds[0])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    ok = kind in kinds and (name == kind or (index.isdecimal() and int(index) < count))
    require(ok, "device", name, "auto or one of " + ", ".join(kinds))
    return torch.device(name)


def bf16_pays(device: torch.device | str) -> bool:
    """Whether bfloat16 is faster there: on newer GPUs, and on CPUs with AMX or AVX512-BF16."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def keep_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one; elsewhere, do nothing.

    By default large blocks go back to the system at once, and taking them anew, page by page, is a
    tenth of the time of a step. Other threads than the first have pools of their own, which give
    back whatever is larger than 64 MB; so there is one for all.
    """
    trim, mmap, arenas = -1, -3, -8  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(trim, 2**30)
        libc.mallopt(mmap, 2**25)  # the most that it allows
        libc.mallopt(arenas, 1)
    except (AttributeError, OSError, TypeError):
        return


def claim_cores(n: int) -> None:
    """Run this thread's operators on n cores, and those of threads that start later on one.

    Each thread that uses several cores has a team of OpenMP threads. With two teams there are more
    threads than cores, so they no longer wait for each other awake: a step takes a fifth longer.
    """
    torch.get_num_threads()  # or the first operator would replace n by what later threads get
    torch.set_num_threads(n)
    later = threading.Thread(target=torch.set_num_threads, args=(1,))
    later.start()
    later.join()
