"""Training, as a generator that yields after every step. It can start from a model's weights."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import DiffusionConfig, ModelConfig, TrainConfig, require
from ddpm_demo.data import NO_LABEL, Images
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.machine.devices import bf16_pays
from ddpm_demo.models.checkpoint import Checkpoint, digest
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.state import load_run, save_run
from ddpm_demo.training.trainer import DivergedError, Machine, Trainer

T_BINS = 10  # ranges of t in the report of the loss by t


@dataclass
class Progress:
    """How far a run has come after a step.

    Attributes:
        step, images: steps done and images seen so far, over all sessions of the run.
        loss: the loss of this step, the mean over the batches of all processes.
        lr: the learning rate of this step.
        seconds: time spent in training so far, over all sessions. The caller's own time between two
            steps doesn't count.
        rate: images per second since the run was last started.
        done: the share of the run that is done, 0 to 1.
        report: a report after every `preview_every` images and at the end, else None.
    """

    step: int
    images: int
    loss: float
    lr: float
    seconds: float
    rate: float
    done: float
    report: Report | None = None

    @property
    def eta(self) -> float:
        """The seconds that remain, at the pace so far."""
        return self.seconds * (1 / self.done - 1) if self.done else math.inf


@dataclass
class Report:
    """A look at the run, from time to time.

    Attributes:
        train_loss: the mean training loss since the last report.
        held_out: the loss of the EMA weights on fixed held-out pictures, t and eps; None without
            such pictures.
        loss_by_t: the mean training loss in ten equal ranges of t; None for a range without a t.
        preview: (16, C, H, W) samples of the EMA weights from fixed seeds, in [-1, 1].
    """

    train_loss: float
    held_out: float | None
    loss_by_t: list[float | None]
    preview: Tensor


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        held_out: pictures for the held-out loss.
        resume: go on from the state in the run's folder; start anew if there is none.
        device: the device to train on.
        bf16: use bfloat16 autocast; None uses it if it is faster on this machine.
        compiled: run the steps through `torch.compile`; this takes a minute before the first step.
        should_stop: called after every step. If it returns True on any process, the run is saved
            and ends.
        denoiser: makes the denoiser for the previews, as in `generate`.
        draw: draws the previews, as in `trainer.Machine`.
        about: more entries for the result's `info`.
        origin: the key in the result's `info` for the checkpoint that the run started from: "base"
            for fine-tuning, "init" for a new model.
    """

    held_out: Images | None = None
    resume: bool = False
    device: torch.device | str = "cpu"
    bf16: bool | None = None
    compiled: bool = False
    should_stop: Callable[[], bool] = lambda: False
    denoiser: Callable[..., Denoiser] = Denoiser
    draw: Callable[[UNet, UNet], Tensor] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "base"


def train(
    model: ModelConfig | Checkpoint,
    diffusion: DiffusionConfig,
    config: TrainConfig,
    data: Images,
    out: Path | None = None,
    **options: Any,
) -> Iterator[Progress]:
    """Train, and yield `Progress` after every step of the optimizer and the EMA.

    The call itself raises errors about wrong arguments, not the first step.

    Args:
        model: a configuration for a new network, or a checkpoint to start from a copy of.
        diffusion: the process to train for. A checkpoint's own process doesn't matter.
        out: the folder of the run (see `run_folder`). State, EMA weights, log and previews are
            written at every report and at the end. None writes nothing.
        options: the fields of `Options`.

    Raises:
        ValueError: the run has no length, or the data doesn't fit the network.
        DivergedError: the loss became NaN or infinite.
        CheckpointError: `out` holds another run.
    """
    o = Options(**options)
    config.require_length()
    net, inherited = _network(model, diffusion, config.seed, o.origin)
    channels = net.config.channels
    require(
        data.pixels.shape[1] == channels,
        "channels of the data",
        data.pixels.shape[1],
        f"{channels}, as for the network",
    )
    require_classes(data, net.config.num_classes, inherited.get("classes", ()))
    device = torch.device(o.device)
    bf16 = bf16_pays(device) if o.bf16 is None else o.bf16
    machine = Machine(device, bf16, o.compiled, o.denoiser, o.draw)
    run = Trainer(net, diffusion, config, data, o.held_out, machine)
    run.inherited = {**inherited, **o.about}
    if isinstance(model, Checkpoint):
        run.base = {"name": model.name, "weights": digest(model.model)}
    if out and o.resume and RunFolder(out).resumable():
        load_run(out, run)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    return steps_of(run, out, o.should_stop)


def _network(
    model: ModelConfig | Checkpoint, diffusion: DiffusionConfig, seed: int, origin: str
) -> tuple[UNet, dict[str, Any]]:
    """The network to train, and the entries of the result's `info` that the checkpoint gives."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(model.model.config if isinstance(model, Checkpoint) else model)
    if not isinstance(model, Checkpoint):
        return net, {}
    net.load_state_dict(model.model.state_dict())
    inherited: dict[str, Any] = {origin: model.name}
    if model.classes:
        inherited["classes"] = model.classes
    if "sample" in model.info and diffusion == model.diffusion:  # else it may not fit
        inherited["sample"] = model.info["sample"]
    return net, inherited


def with_classes(base: Checkpoint, classes: int) -> Checkpoint:
    """A copy of a base without classes that can learn classes.

    The embeddings of the classes and of "any" start at zero. So at first, all classes draw the
    same.
    """
    net = UNet(dataclasses.replace(base.model.config, num_classes=classes))
    zeros = {"class_embedding.weight": torch.zeros_like(net.class_embedding.weight)}
    net.load_state_dict(base.model.state_dict() | zeros)
    return dataclasses.replace(base, model=net.eval())


def require_classes(data: Images, num_classes: int, names: Sequence[str]) -> None:
    """Raise `ValueError` unless the data and the network have the same classes.

    Data without classes fit every network: a picture without a label trains the null class.

    Args:
        names: the names of the network's classes, if they are known.
    """
    low, high = (int(end) for end in data.labels.aminmax()) if len(data) else (NO_LABEL, NO_LABEL)
    if num_classes:  # to the network, num_classes means "no class"; data must use NO_LABEL instead
        allowed = f"from {NO_LABEL} (none) to {num_classes - 1}"
        require(NO_LABEL <= low <= high < num_classes, "labels", (low, high), allowed)
    if not num_classes or not data.classes:
        return
    require(
        len(data.classes) == num_classes and list(names) in (list(data.classes), []),
        "classes of the data",
        ", ".join(data.classes),
        f"those of the model ({', '.join(names) or num_classes})",
    )


def steps_of(run: Trainer, out: Path | None, should_stop: Callable[[], bool]) -> Iterator[Progress]:
    config = run.config
    first, started, before = run.images, time.monotonic(), run.seconds
    sums, counts = torch.zeros(2, T_BINS)
    while run.done() < 1:
        lr, last_report = run.lr(), run.images // config.preview_every
        try:
            t, each = run.advance(lr)
        except DivergedError as error:
            saved = f"The last good checkpoint is in {out}." if out and run.history else ""
            raise DivergedError(f"{error} {saved or 'No checkpoint was saved yet.'}") from None
        bins = (t - 1) * T_BINS // run.diffusion.T
        sums.index_add_(0, bins, each.cpu())
        counts.index_add_(0, bins, torch.ones(len(t)))
        run.seconds, stop, loss = run.mean(
            before + time.monotonic() - started, should_stop(), float(each.mean())
        )
        ended = stop or run.done() >= 1
        report = None
        if ended or run.images // config.preview_every > last_report:
            by_t = [s / c if c else None for s, c in zip(sums.tolist(), counts.tolist())]  # noqa: B905
            report = Report(
                float(sums.sum() / counts.sum()), run.held_out_loss(), by_t, run.preview()
            )
            sums.zero_()
            counts.zero_()
            run.history.append(
                {"images": run.images, "held_out": report.held_out, "train": report.train_loss}
            )
            if out and run.rank == 0:
                save_run(out, run)
                RunFolder(out).add(_row(run, lr, report), report.preview)
        rate = (run.images - first) / max(time.monotonic() - started, 1e-9)
        left = time.monotonic()
        yield Progress(run.step, run.images, loss, lr, run.seconds, rate, run.done(), report)
        started += time.monotonic() - left  # the caller's time doesn't count as training
        if stop:
            return


def _row(run: Trainer, lr: float, report: Report) -> dict[str, Any]:
    """The line of a report in the log."""
    return {
        "step": run.step,
        "images": run.images,
        "seconds": round(run.seconds),
        "lr": lr,
        "train": report.train_loss,
        "held_out": report.held_out,
        "loss_by_t": report.loss_by_t,
    }
