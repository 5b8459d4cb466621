"""Simple and Fast Distillation (Zhou et al. 2024): a student that needs 4, 2 or 1 calls a picture.

The student starts as a copy of its teacher. It learns to reach, by DDIM in a few long steps, the
x_s that the teacher reaches in many short ones. One network can learn several numbers of steps.
Each number has its own timesteps, so the network knows from t which one is meant. The student also
learns guidance, so that each step is one call.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_demo.config import TrainConfig, number, require
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Denoiser, Noise, Schedule, losses, split
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.machine.devices import bf16_pays
from ddpm_demo.models.checkpoint import Checkpoint, digest
from ddpm_demo.training import trajectories as tr
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.state import load_run
from ddpm_demo.training.train import Options, Progress, steps_of
from ddpm_demo.training.trainer import Machine, Trainer

Plans = dict[int, list[int]]  # the student's falling timesteps, by the number of its steps
USUAL: dict[str, Any] = {"batch_size": 32, "lr": 1e-4, "warmup": 20, "decay": 0.5, "ema": 0.999}
# Warm-up counts batches. A batch has one update for each step of the student.
LAST = 0.1  # the share of the learning rate at the end of the run


def plan(teacher: Checkpoint, lengths: Sequence[int]) -> Plans:
    """Choose the student's timesteps for each number of steps. They are all among the teacher's.

    Raises:
        ValueError: the teacher can't be distilled, or two numbers of steps share a timestep.
    """
    info, process = teacher.info, teacher.diffusion
    require(process.noise == "gaussian", "noise of the teacher", process.noise, "gaussian")
    says = process.predict
    require(says in ("v", "x0"), "what the teacher predicts", says, "v or x0")
    require("few" not in info, "model", teacher.name, "one that was not distilled itself")
    at = tr.teacher_timesteps(Schedule.from_config(process))
    asked, most = ",".join(map(str, lengths)), len(at) - 1
    allowed = f"different numbers from 1 to {most}, such as 4,2,1, that share no timestep"
    require(all(1 <= n <= most for n in lengths), "steps", asked, allowed)
    plans = {n: [at[len(at) * k // (n + 1)] for k in range(1, n + 1)] for n in lengths}
    if 1 in plans:
        plans[1] = at[:1]
    apart = len({t for times in plans.values() for t in times})
    require(apart == sum(lengths) > 0, "steps", asked, allowed)
    return plans


def require_student(init: Checkpoint, teacher: Checkpoint, plans: Plans) -> None:
    """Check that a student can go on learning from this teacher.

    Raises:
        ValueError: it has another teacher, or has not learned these numbers of steps.
    """
    own, known = init.info.get("teacher") or {}, init.info.get("few") or {}
    fits = own.get("teacher") == tr.about(teacher, [])["teacher"]
    fits = fits and all(known.get(str(n)) == times for n, times in plans.items())
    steps = ",".join(map(str, plans))
    require(fits, "--init", init.name, f"distilled from {teacher.name} for {steps} steps")


def stops(plans: Plans) -> list[int]:
    """The falling t at which the student is compared with its teacher. The last is 0."""
    return sorted({s for times in plans.values() for s in [*times[1:], 0]}, reverse=True)


def settings(teacher: Checkpoint, trajectories: int, **values: Any) -> TrainConfig:
    """The configuration of a distillation.

    Raises:
        ValueError: a value is not allowed, or there are fewer trajectories than a batch needs.
    """
    number("trajectories", trajectories, 1, 10**7, whole=True)
    dataset = str(teacher.info.get("dataset", "none"))
    given = {k: v for k, v in values.items() if v is not None}
    config = TrainConfig(dataset=dataset, loss="l1", label_dropout=1 / tr.NULLS, **USUAL | given)
    most = f"a whole number from 1 to {trajectories:,} (the number of trajectories)"
    require(config.batch_size <= trajectories, "batch_size", config.batch_size, most)
    config.require_length()
    return config


class Distiller(Trainer):
    """The state of a distillation. Its data are the final pictures of the trajectories.

    Args:
        x: (N, S, C, H, W), the teacher's x_s at the S `stops`.
    """

    def __init__(
        self,
        teacher: Checkpoint,
        plans: Plans,
        config: TrainConfig,
        x: Tensor,
        device: torch.device,
        bf16: bool,
    ) -> None:
        y = tr.labels(teacher, torch.arange(len(x)))
        pixels = ((x[:, -1].float() + 1) * 127.5).round().clamp(0, 255).byte()
        labels = torch.zeros(len(x), dtype=torch.long) if y is None else y
        data = Images(pixels, labels, tuple(teacher.classes))
        student = copy.deepcopy(teacher.model).requires_grad_(True)
        super().__init__(student, teacher.diffusion, config, data, None, Machine(device, bf16))
        self.model.eval()  # no dropout: the targets have no noise
        self.teacher, self.plans, self.x = teacher, plans, x
        self.taught: Tensor | None = None  # the teacher's pictures for the previews

    def start_from(self, student: Checkpoint) -> None:
        """Start from an earlier student instead of the teacher."""
        for net in self.nets.values():
            net.load_state_dict(student.model.state_dict())
        self.inherited = {"init": student.name}
        self.base = {"name": student.name, "weights": digest(student.model)}

    def move(self, net: nn.Module, x: Tensor, t: int, s: int, y: Tensor | None) -> Tensor:
        """Go from x_t to x_s by DDIM with eta = 0. x0_hat is not clipped."""
        alpha_bar, each = self.schedule.alpha_bar, torch.full((len(x),), t)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            raw = net(x, (each - 1).to(self.device), y)
        x0, eps = split(
            raw.float(), x, self.schedule.at(alpha_bar, each, x), self.diffusion.predict
        )
        return math.sqrt(alpha_bar[s]) * x0 + math.sqrt(1 - alpha_bar[s]) * eps

    def advance(self, lr: float) -> tuple[Tensor, Tensor]:
        """Walk one batch down to t = 0, and update the weights after every step of the student.

        Each batch takes the next number of steps in turn. Returns t and the loss of each picture at
        each step.
        """
        times = list(self.plans.values())[self.step % len(self.plans)]
        numbers = self.shuffle.take(self.images, self.config.batch_size)[self.rank :: self.world]
        x = tr.noise(self.teacher, [tr.SEED + i for i in numbers.tolist()]).to(self.device)
        y = self.data.labels[numbers].to(self.device) if self.model.config.num_classes else None
        at, seen, found = stops(self.plans), [], []
        for t, s in pairwise([*times, 0]):
            x_s = self.move(self.network, x, t, s, y)
            wanted = self.x[numbers, at.index(s)].to(self.device, torch.float32)
            loss = losses.per_picture(self.config.loss, x_s, wanted)
            each = loss / math.sqrt(self.schedule.alpha_bar[s])
            self.update(each.mean(), lr)
            x = x_s.detach()
            seen.append(torch.full((len(x),), t))
            found.append(each.detach())
        self.step += 1
        self.images += self.config.batch_size
        return torch.cat(seen), torch.cat(found)

    def lr(self) -> float:
        """The learning rate: linear warm-up, constant, then linear decay to a tenth."""
        config = self.config
        up = min(1.0, (self.step + 1) / config.warmup) if config.warmup else 1.0
        down = min(1.0, (1 - self.done()) / config.decay) if config.decay else 1.0
        return config.lr * up * (LAST + (1 - LAST) * down)

    @torch.no_grad()
    def preview(self) -> Tensor:
        """Pictures of the teacher, and below them the student's for each number of steps.

        There are two such blocks of R rows with 2R pictures, which make a square sheet.
        """
        rows, config = 1 + len(self.plans), self.model.config
        seeds = torch.arange(4 * rows)
        y = seeds % config.num_classes if config.num_classes else None
        if self.taught is None:
            *_, last = tr.teach(self.teacher, seeds.tolist(), y, bf16=self.bf16)
            self.taught = last.x_t.to(self.device)
        y = None if y is None else y.to(self.device)
        denoiser = Denoiser(self.ema, self.diffusion, clip=False, y=y, bf16=self.bf16)
        shown, x_T = [self.taught], tr.noise(self.teacher, seeds.tolist()).to(self.device)
        for times in self.plans.values():
            *_, last = ddim(denoiser, x_T, times, noise=Noise("gaussian", []))
            shown.append(last.x_t)
        return torch.stack(shown).unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 2)

    def checkpoint(self) -> Checkpoint:
        """The EMA weights. `info` names the teacher, and says how to sample the student."""
        checkpoint = super().checkpoint()
        few = {str(n): times for n, times in self.plans.items()}
        steps = next(iter(self.plans))
        own = {"sampler": "ddim", "steps": steps, "eta": 0.0, "clip": False, "guidance": 1.0}
        checkpoint.info |= {
            "teacher": {"name": self.teacher.name} | tr.about(self.teacher, stops(self.plans)),
            "trajectories": len(self.x),
            "sample": own,
            "few": few,
        }
        return checkpoint

    def configs(self) -> dict[str, dict[str, Any]]:
        few = {str(n): times for n, times in self.plans.items()}
        own = {"trajectories": len(self.x), "few": few}
        return super().configs() | {"teacher": tr.about(self.teacher, []), "student": own}


def distill(
    teacher: Checkpoint,
    plans: Plans,
    config: TrainConfig,
    x: Tensor,
    out: Path | None = None,
    init: Checkpoint | None = None,
    **options: Any,
) -> Iterator[Progress]:
    """Train a student, and yield `Progress` after every batch. The teacher doesn't change.

    Args:
        plans, config: from `plan` and `settings`.
        x: the teacher's trajectories at `stops(plans)`, from `trajectories.load`.
        out: the folder of the run, as in `train`.
        init: an earlier student to start from (see `require_student`); None: the teacher.
        options: `resume`, `bf16` and `should_stop`, as in `train.Options`.

    Raises:
        DivergedError: the loss became NaN or infinite.
        CheckpointError: `out` holds another run.
    """
    device = next(teacher.model.parameters()).device
    o = Options(**options)
    bf16 = bf16_pays(device) if o.bf16 is None else o.bf16
    run = Distiller(teacher, plans, config, x, device, bf16)
    if init:
        run.start_from(init)
    if o.resume and out and RunFolder(out).resumable():
        load_run(out, run)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    return steps_of(run, out, o.should_stop)
