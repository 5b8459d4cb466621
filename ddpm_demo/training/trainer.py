"""The state of a training run, and how to train one step.

A step is algorithm 1 of Ho et al. 2020: draw x_0, t and eps, and step down the gradient of the
distance between eps and the network's prediction at x_t. All randomness of a step comes from (seed,
step), and in a group of processes from the process's number, too. So a run that is killed and
resumed ends with the same weights as one that is not, unless its length is in minutes. On a CPU
they are exactly the same. On a GPU, convolutions may add up gradients in another order.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_demo.config import DiffusionConfig, TrainConfig, require
from ddpm_demo.data import NO_LABEL, Images
from ddpm_demo.diffusion import KINDS, Denoiser, Schedule, losses
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.group import join, mean
from ddpm_demo.training.preview import preview

HELD_OUT = 1024  # the number of pictures for the held-out loss
RAW, EMA = "model", "ema"  # two kinds of weights that each run has; `wide` names the others


class DivergedError(FloatingPointError):
    """The loss or its gradient became NaN or infinite. The message names step and learning rate."""


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A random generator whose stream depends only on `key`."""
    seed = 0
    for k in key:  # mixed as in splitmix, so that nearby keys give unrelated streams
        seed = ((seed ^ k) * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**63
    return torch.Generator(device).manual_seed(seed)


def wide(width: float) -> str:
    """The name of the weights of a power-function average of this width."""
    return f"{EMA}-{width:g}"


@functools.cache
def exponent(width: float) -> float:
    """The exponent gamma of a power-function average (Karras et al. 2024, section 3.1).

    The average weights all steps so far. Its width is the standard deviation of these weights, as a
    share of the number of steps: width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)). At step t,
    the average moves towards the new weights by 1 - (1 - 1 / t)^(gamma + 1).
    """
    k = width**-2
    return float(np.roots([1, 7, 16 - k, 12 - k]).real.max())


class Shuffle:
    """An endless stream of shuffled indices that can be read from any position.

    Each epoch is a new permutation of 0..n - 1.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, -1
        self.order = torch.empty(0, dtype=torch.long)

    def take(self, start: int, count: int) -> Tensor:
        parts = []
        while count:
            epoch, offset = divmod(start, self.n)
            if epoch != self.epoch:
                g = generator(torch.device("cpu"), self.seed, 1, epoch)
                self.epoch, self.order = epoch, torch.randperm(self.n, generator=g)
            parts.append(self.order[offset : offset + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return torch.cat(parts)


@dataclass(frozen=True)
class Machine:
    """Where a run is computed, and how.

    Attributes:
        device: the device to train on.
        bf16: use bfloat16 autocast.
        compiled: run the steps through `torch.compile`; this takes a minute before the first step.
        denoiser: makes the denoiser for the previews, as in `generate`.
        draw: draws the previews from the EMA network and the raw network. None uses `preview`.
    """

    device: torch.device
    bf16: bool = False
    compiled: bool = False
    denoiser: Callable[..., Denoiser] = Denoiser
    draw: Callable[[UNet, UNet], Tensor] | None = None


class Trainer:
    """The state of a run: network, EMA, optimizer, and how far it has come."""

    def __init__(
        self,
        model: UNet,
        diffusion: DiffusionConfig,
        config: TrainConfig,
        data: Images,
        held_out: Images | None = None,
        machine: Machine | None = None,
    ) -> None:
        machine = machine or Machine(torch.device("cpu"))
        device = machine.device
        self.model = model.to(device).train()
        self.nets = {RAW: self.model}  # networks by the kind of their weights
        for kind in (EMA, *map(wide, config.ema_rel)):
            self.nets[kind] = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.ema = self.nets[EMA]
        self.diffusion, self.config = diffusion, config
        self.schedule = Schedule.from_config(diffusion)
        self.data, self.held_out = data.on(device), held_out
        self.device, self.bf16 = device, machine.bf16
        self.denoiser, self.drawn_by = machine.denoiser, machine.draw
        self._pictures = data
        self.flip = data.flip if config.flip is None else config.flip
        self.shuffle = Shuffle(len(data), config.seed)
        self.rank, self.world, self.network = join(self.model, device)
        if machine.compiled:
            self.network.compile()
        require(
            config.batch_size % self.world == 0,
            "batch_size",
            config.batch_size,
            f"a multiple of the {self.world} processes",
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.lr,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.step = self.images = 0
        self.inherited: dict[str, Any] = {}  # entries that the result's `info` gets from the base
        self.base: dict[str, str | None] = {"name": None}  # the base's name and a hash of it
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []  # held-out losses, for the card and the curve

    @functools.cached_property
    def digests(self) -> Tensor:
        """(N,) int64 hashes of the pictures that the run sees (see `Images.digests`)."""
        return self._pictures.digests()

    def reorder(self, order: Tensor) -> None:
        """Put the pictures into another order."""
        digests = self.digests[order]
        self.data, self._pictures = self.data.take(order), self._pictures.take(order)
        self.digests = digests

    # ---- one step -----------------------------------------------------------------------------

    def draw(self, step: int, images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw x_0, t, eps and labels of a step, for this process's share of the batch.

        Every process draws the whole batch and takes its share. So n processes together see exactly
        the batch that one process would see.
        """
        config, n = self.config, self.config.batch_size
        g = generator(torch.device("cpu"), config.seed, 2, step)
        index = self.shuffle.take(images, n)
        t = torch.randint(1, self.diffusion.T + 1, (n,), generator=g)
        mirrored = torch.rand(n, generator=g) < 0.5 * self.flip
        unlabelled = torch.rand(n, generator=g) < config.label_dropout
        own = slice(self.rank, None, self.world)
        x_0 = self.data.batch(index[own]).to(self.device)
        x_0 = torch.where(mirrored[own, None, None, None].to(self.device), x_0.flip(3), x_0)
        labels = self.data.labels[index]
        y = labels.masked_fill(unlabelled | (labels == NO_LABEL), self.model.config.num_classes)
        if self.device.type == "cuda":  # the CPU draws noise more slowly than a GPU trains
            g = generator(self.device, config.seed, 2, step)
        eps = KINDS[self.diffusion.noise]((n, *x_0.shape[1:]), g)[own].to(self.device)
        return x_0, t[own], eps, y[own].to(self.device)

    def losses(self, net: nn.Module, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor) -> Tensor:
        """(B,) unweighted losses of a network. For eps and MSE: Ho et al. 2020, eq. 14."""
        x_t = self.schedule.q_sample(x_0, t, eps)
        alpha_bar = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            raw = net(x_t, (t - 1).to(self.device), y if self.model.config.num_classes else None)
        wanted = losses.target(self.diffusion.predict, x_0, eps, alpha_bar)
        return losses.per_picture(self.config.loss, raw, wanted)

    def advance(self, lr: float) -> tuple[Tensor, Tensor]:
        """Do one step of optimizer and EMA. Returns t and losses of this process's pictures."""
        config = self.config
        x_0, t, eps, y = self.draw(self.step, self.images)
        with self.dropout_seeded():
            each = self.losses(self.network, x_0, t, eps, y)
            weight = losses.weights(config.weighting, self.schedule, t, self.diffusion.predict)
            self.update((weight.to(self.device) * each).mean(), lr)
        self.step += 1
        self.images += config.batch_size
        return t, each.detach()

    def update(self, loss: Tensor, lr: float) -> None:
        """Move the weights down the gradient of `loss`, and then the EMA towards them."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        length = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        # All processes have the same gradient, so a bad loss on one of them stops all.
        if not bool(loss.isfinite() & length.isfinite()):
            raise DivergedError(
                f"The loss is {loss.item()} and the length of its gradient {length.item()} "
                f"at step {self.step + 1}, learning rate {lr:.3g}."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        decays = {EMA: min(self.config.ema, (1 + self.step) / (10 + self.step))}
        for width in self.config.ema_rel:
            decays[wide(width)] = (1 - 1 / (self.step + 1)) ** (exponent(width) + 1)
        now: list[Tensor] = list(self.model.parameters())
        with torch.no_grad():
            for kind, decay in decays.items():
                torch._foreach_lerp_(list(self.nets[kind].parameters()), now, 1 - decay)

    def mean(self, *values: float) -> list[float]:
        """The mean of each value over all processes."""
        return mean(values, self.world, self.device)

    @contextlib.contextmanager
    def dropout_seeded(self) -> Iterator[None]:
        """Seed the global generator, which dropout uses, for one step. Then restore it."""
        if not self.model.config.dropout:
            yield
            return
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            key = generator(torch.device("cpu"), self.config.seed, 3, self.step, self.rank)
            torch.manual_seed(key.initial_seed())
            yield

    # ---- how far, and how fast ----------------------------------------------------------------

    def done(self) -> float:
        """The share of the run that is done, 0 to 1, by the limit that comes first."""
        config = self.config
        shares = [
            self.images / config.images if config.images else 0.0,
            self.images / (config.epochs * len(self.data)) if config.epochs else 0.0,
            self.seconds / (config.minutes * 60) if config.minutes else 0.0,
        ]
        return min(1.0, max(shares))

    def lr(self) -> float:
        """The learning rate: linear warm-up, constant, then linear decay to nearly 0."""
        config = self.config
        up = min(1.0, (self.step + 1) / config.warmup) if config.warmup else 1.0
        down = min(1.0, (1 - self.done()) / config.decay) if config.decay else 1.0
        return config.lr * up * max(down, 1e-3)

    # ---- looking ------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """The loss of the EMA weights on held-out pictures, always with the same t and eps."""
        if not self.held_out:
            return None
        n = min(HELD_OUT, len(self.held_out))
        g = generator(torch.device("cpu"), 0, 4)
        x_0, y = self.held_out.batch(torch.arange(n)), self.held_out.labels[:n]
        y = y.masked_fill(y == NO_LABEL, self.model.config.num_classes)
        t = torch.randint(1, self.diffusion.T + 1, (n,), generator=g)
        eps = KINDS[self.diffusion.noise](x_0.shape, g)
        total = 0.0
        for part in torch.arange(n).split(64):
            x, e, labels = (v[part].to(self.device) for v in (x_0, eps, y))
            total += float(self.losses(self.ema, x, t[part], e, labels).sum())
        return total / n

    def preview(self) -> Tensor:
        """Draw a preview with the EMA weights.

        It shows the classes in turn. If the data have only one class, it shows the null class,
        because this training then changes what "any" class looks like.
        """
        if self.drawn_by:
            return self.drawn_by(self.ema, self.model)
        several = len(self.data.labels.unique()) > 1
        options: dict[str, Any] = {"bf16": self.bf16, "denoiser": self.denoiser}
        return preview(self.ema, self.diffusion, by_class=several, **options)

    # ---- files --------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The EMA weights, with an `info` that says how they were trained."""
        classes = list(self.data.classes) or self.inherited.get("classes", [])
        info = self.inherited | {
            "dataset": self.config.dataset,
            "classes": classes if self.model.config.num_classes else [],
            "images": self.images,
            "seconds": round(self.seconds),
            "train": dataclasses.asdict(self.config),
        }
        return Checkpoint(self.ema, self.diffusion, info)

    def configs(self) -> dict[str, dict[str, Any]]:
        """The settings that may not change when a run is resumed. Its length may change."""
        train = dataclasses.asdict(self.config)
        for free in ("images", "epochs", "minutes", "preview_every"):
            del train[free]
        return {
            "model": dataclasses.asdict(self.model.config),
            "diffusion": dataclasses.asdict(self.diffusion),
            "train": train,
            "base": self.base,
        }
