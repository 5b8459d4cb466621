"""The trajectories of a teacher from noise to pictures. They are made once and kept on disk.

Trajectory i has the seed SEED + i. These seeds are so high that the student never learns from a
picture that somebody looks at. Classes take turns, but every tenth file has the null class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import SampleConfig, from_dict
from ddpm_demo.diffusion import Denoiser, Noise, Schedule, Step
from ddpm_demo.diffusion.samplers.dpmpp import dpmpp_2m
from ddpm_demo.models.checkpoint import (
    Checkpoint,
    CheckpointError,
    digest,
    load_tensors,
    save_tensors,
)

SEED = 10_000_000  # the seed of the first trajectory
SHARD = 20  # the number of trajectories in a file
NULLS = 10  # one file in this many has the null class
# The teacher's t on the cosine schedule with T = 1000. Other schedules use t with the same SNR.
STOPS = (
    *(992, 990, 986, 982, 975, 966, 953, 934, 906, 864),
    *(800, 706, 577, 422, 275, 160, 85, 40, 15, 2),
)


def teacher_timesteps(schedule: Schedule) -> list[int]:
    """The teacher's falling timesteps: 20, or fewer if T is too small for 20."""
    wanted = Schedule.cosine(1000).snr[list(STOPS)].log()
    snr = schedule.snr[1:].log()
    return sorted({int((snr - w).abs().argmin()) + 1 for w in wanted}, reverse=True)


def noise(teacher: Checkpoint, seeds: Sequence[int]) -> Tensor:
    """(B, C, H, W) noise that the sampler starts from with these seeds."""
    config = teacher.model.config
    shape = (len(seeds), config.channels, config.size, config.size)
    return Noise("gaussian", seeds).draw(shape)


def labels(teacher: Checkpoint, numbers: Tensor) -> Tensor | None:
    """(B,) the classes of the trajectories with these numbers, or None without classes."""
    classes = teacher.model.config.num_classes
    null = numbers // SHARD % NULLS == NULLS - 1
    return torch.where(null, classes, (SEED + numbers) % classes) if classes else None


def guidance(teacher: Checkpoint) -> float:
    """The teacher's own guidance scale w."""
    return from_dict(SampleConfig, teacher.info.get("sample") or {}).guidance


def teach(
    teacher: Checkpoint, seeds: Sequence[int], y: Tensor | None, *, bf16: bool = False
) -> Iterator[Step]:
    """Sample the teacher by DPM-Solver++(2M), clipped, with its own guidance.

    Args:
        y: (B,) labels. Guidance has no effect on the null class.
    """
    device = next(teacher.model.parameters()).device
    denoiser = Denoiser(
        teacher.model,
        teacher.diffusion,
        y=None if y is None else y.to(device),
        guidance=guidance(teacher),
        bf16=bf16,
    )
    x_T = noise(teacher, seeds).to(device)
    t = teacher_timesteps(denoiser.schedule)
    return dpmpp_2m(denoiser, x_T, t, noise=Noise("gaussian", []))


def about(teacher: Checkpoint, times: Sequence[int]) -> dict[str, Any]:
    """Everything that trajectories depend on, for JSON. Another teacher can't use them."""
    t = teacher_timesteps(Schedule.from_config(teacher.diffusion))
    own = {"teacher": digest(teacher.model), "guidance": guidance(teacher), "t": t}
    return own | {"times": list(times)}


def make(
    teacher: Checkpoint, times: Sequence[int], count: int, folder: Path, *, bf16: bool = False
) -> Iterator[int]:
    """Make the missing trajectories, and yield how many of the `count` there are so far.

    Args:
        times: the falling t at which x_t is kept; the last is 0.

    Raises:
        CheckpointError: the folder holds trajectories of another teacher, or at other t.
    """
    said = about(teacher, times)
    for first in range(0, count, SHARD):
        numbers = torch.arange(first, min(first + SHARD, count))
        path = _path(folder, first)
        if not path.is_file() or len(_read(path, said)) < len(numbers):
            y = labels(teacher, numbers)
            if y is not None and bool((y == teacher.model.config.num_classes).all()):
                y = None  # without guidance, the work is half
            kept = {}
            for step in teach(teacher, [SEED + i for i in numbers.tolist()], y, bf16=bf16):
                if step.t in times:
                    kept[step.t] = step.x_t
            x = torch.stack([kept[t] for t in times], dim=1)
            save_tensors(path, {"x": x.half()}, said)
        yield int(numbers[-1]) + 1


def load(teacher: Checkpoint, times: Sequence[int], count: int, folder: Path) -> Tensor:
    """Read (count, len(times), C, H, W) in half precision from the files that `make` wrote."""
    said = about(teacher, times)
    shards = [_read(_path(folder, first), said) for first in range(0, count, SHARD)]
    return torch.cat(shards)[:count]


def _path(folder: Path, first: int) -> Path:
    return folder / f"trajectories-{first:06d}.safetensors"


def _read(path: Path, said: dict[str, Any]) -> Tensor:
    tensors, found = load_tensors(path)
    if found != said:
        raise CheckpointError(f"{path.parent} holds trajectories of another teacher or at other t.")
    return tensors["x"]
