"""How does it learn?: a small network learns digits from scratch, and you watch.

It uses the trainer of `python -m ddpm_demo train` and the same kind of folder, so `sample` and
`ship` can use the result. The network sees MNIST at half its size, which is a quarter of the work.
docs/training.md says how far it gets in two minutes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo import data
from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, TrainConfig
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Noise, Schedule
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.evaluation.features import SURE
from ddpm_demo.experiments.asked import Learn
from ddpm_demo.experiments.tools import Panel, Plot, Report, Sheet, Table, Tools, Words
from ddpm_demo.media import convert
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, load_tensors, save_tensors
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.train import Progress, train

SIZE, DIGITS, JUDGED = 14, 10, 100
NETWORK = ModelConfig(
    size=SIZE, channels=1, width=16, multipliers=(1, 2), attention=(7,), time_dim=64,
    num_classes=DIGITS,
)  # fmt: skip
PROCESS = DiffusionConfig(1000, "cosine", predict="v")
TRAIN = TrainConfig(
    "mnist", batch_size=32, warmup=50, decay=0.5, ema=0.995, label_dropout=0.1, preview_every=640
)
SAMPLE: dict[str, Any] = {"sampler": "dpmpp_2m", "steps": 8, "spacing": "logsnr", "guidance": 2.0}
LEVELS = (0.2, 0.4, 0.6, 0.8)  # the shares of T to which one picture is noised
PICTURE = 0  # the index of this picture among the test pictures: a seven


def cost(asked: Learn, per_call: Callable[[str, int], float]) -> float:
    return asked.seconds + 8.0


def run(asked: Learn, tools: Tools) -> Iterator[Report]:
    """Train, and yield reports. A run that is stopped early can go on from its last report."""
    yield Report(0, "Getting the digits ready")
    digits = tools.data("mnist", SIZE, 1, train=True)
    digits = digits.take(torch.arange(min(asked.pictures, len(digits))))
    watch = _Watch(asked, tools, tools.data("mnist", SIZE, 1, train=False))
    config = dataclasses.replace(
        TRAIN, lr=asked.lr, seed=asked.seed, minutes=watch.minutes(),
        batch_size=min(TRAIN.batch_size, len(digits)),
    )  # fmt: skip
    begun = watch.fresh()
    yield Report(0.001, "Before the first step", watch.panels(watch.draw(begun, begun)))
    steps = train(
        NETWORK, PROCESS, config, digits, watch.folder,
        resume=asked.go_on, draw=watch.draw, about={"sample": SAMPLE}, device=tools.device,
    )  # fmt: skip
    for at in steps:
        watch.saw(at)
        yield Report(0.95 * at.done, watch.words(at), watch.shown)
    yield from watch.result()


def loss_by_t(rows: Sequence[Mapping[str, Any]], T: int) -> Iterator[Plot]:
    """A plot of the loss by t at the start and at the end of a log, if the log has it."""
    lines = {}
    for words, row in (("at first", rows[0]), ("at last", rows[-1])):
        by_t = row.get("loss_by_t") or []
        known = [((k + 0.5) * T / len(by_t), v) for k, v in enumerate(by_t) if v is not None]
        if known:
            lines[words] = ([t for t, _ in known], [v for _, v in known])
    if lines:
        yield Plot("Loss by t", line_plot(lines, "t", "loss"))


class _Watch:
    """Looks at the network while it learns."""

    def __init__(self, asked: Learn, tools: Tools, test: Images) -> None:
        self.asked, self.tools = asked, tools
        self.folder: Path | None = tools.folder
        self.files = RunFolder(self.folder) if self.folder else None
        self.before = 0.0
        if asked.go_on:
            self._take_up()
        elif self.files:
            self.files.clear()
        schedule = Schedule.from_config(PROCESS)
        self.t = torch.tensor([round(level * PROCESS.T) for level in LEVELS])
        self.clean = test.batch(torch.tensor([PICTURE]))
        self.label = test.labels[[PICTURE]].expand(len(LEVELS)).clamp(min=0)
        eps = Noise("gaussian", [asked.seed]).draw(tuple(self.clean.shape))
        self.noisy = torch.cat([schedule.q_sample(self.clean, int(t), eps) for t in self.t])
        self.rows: list[dict[str, Any]] = self.files.rows() if self.files and asked.go_on else []
        self.net: UNet | None = None
        self.raw, self.unaveraged = self.fresh(), torch.zeros(0)
        self.guess = torch.zeros_like(self.noisy)
        self.shown: tuple[Panel, ...] = ()

    def _take_up(self) -> None:
        """Set the learning rate of the new settings in the saved state, which the run goes on from.

        Raises:
            ValueError: there is no saved state.
        """
        there = self.files is not None and self.files.resumable()
        if not there:
            raise ValueError("There is no run of yours to go on with. Start one without “Go on”.")
        assert self.files
        state, about = load_tensors(self.files.state)
        self.before = float(about["seconds"])
        about["configs"]["train"]["lr"] = self.asked.lr
        save_tensors(self.files.state, state, about)

    def minutes(self) -> float:
        return (self.before + self.asked.seconds) / 60

    def fresh(self) -> UNet:
        with torch.random.fork_rng():
            torch.manual_seed(self.asked.seed)
            return UNet(NETWORK).eval().to(self.tools.device)

    def draw(self, net: UNet, raw: UNet) -> Tensor:
        """Draw 16 samples with the averaged weights, from the seeds 0 to 15, digits in turn.

        Also keep samples of the raw weights, and x0_hat for the noisy picture.
        """
        self.net = net
        self.raw.load_state_dict(raw.state_dict())
        self.unaveraged = self._samples(self.raw, 16, 0)
        denoise = self.tools.denoiser(net, PROCESS, y=self.label.to(self.tools.device))
        self.guess = denoise(self.noisy.to(self.tools.device), self.t).x0.cpu()
        return self._samples(net, 16, 0)

    def _samples(self, net: UNet, n: int, seed: int) -> Tensor:
        config = SampleConfig(n=n, seed=seed, labels=tuple(range(DIGITS)), **SAMPLE)
        *_, last = self.tools.generate(Checkpoint(net, PROCESS, {}), config)
        return last.x_t.clamp(-1, 1)

    def saw(self, at: Progress) -> None:
        """Look at a finished step. If it has a report, there is more to show."""
        if at.report is None:
            return
        self.rows.append(
            {"images": at.images, "seconds": at.seconds, "lr": at.lr,
             "train": at.report.train_loss, "loss_by_t": at.report.loss_by_t}
        )  # fmt: skip
        self.shown = self.panels(at.report.preview)

    def words(self, at: Progress) -> str:
        return f"{at.images:,} pictures seen, loss {at.loss:.3f}, learning rate {at.lr:.2g}"

    def panels(self, samples: Tensor) -> tuple[Panel, ...]:
        """The panels: pictures first, then curves."""
        kinds = (self.noisy, self.guess, self.clean.expand_as(self.noisy))
        cells = tuple(tuple(convert.to_uint8(x[None]) for x in kind) for kind in kinds)
        one = Sheet(
            "One noisy picture, and what the network takes it for", cells,
            ("x_t", "x̂₀", "the picture"), tuple(f"t = {int(t)}" for t in self.t), wide=1,
        )  # fmt: skip
        drawn = Sheet(
            f"16 samples from the same noise, digits in turn, guidance {SAMPLE['guidance']:g}",
            ((convert.to_uint8(samples),), (convert.to_uint8(self.unaveraged),)),
            ("averaged weights (EMA)", "as they are (EMA off)"), wide=8,
        )  # fmt: skip
        self.shown = (drawn, one, *self._curves())
        return self.shown

    def _curves(self) -> tuple[Plot, ...]:
        if not self.rows:
            return ()
        seen = [row["images"] for row in self.rows]
        loss = {"loss": (seen, [row["train"] for row in self.rows])}
        note = "Mean of the v loss since the pictures before."
        plots = [Plot("Loss", line_plot(loss, "pictures seen", "loss"), note)]
        return (*plots, *loss_by_t(self.rows, PROCESS.T))

    def result(self) -> Iterator[Report]:
        """Judge many samples with the classifier, and yield the final report."""
        last, numbers = self.rows[-1], dict[str, Any]()
        numbers |= {"images": last["images"], "seconds": last["seconds"], "lr": self.asked.lr}
        numbers["losses"] = [row["train"] for row in self.rows]
        yield Report(0.96, f"Looking at {JUDGED} samples", self.shown)
        table: tuple[Panel, ...] = ()
        if (judged := self._judged()) is not None:
            share, half = judged
            numbers |= {"sure": share, "interval": half, "n": JUDGED}
            table = (self._table(share, half),)
        yield Report(1, "", (*self.shown, *table, Words(self._said())), numbers)

    def _judged(self) -> tuple[float, float] | None:
        """The share of samples that the classifier is sure of, and half of its 95 % interval."""
        assert self.net
        try:
            judge = load_classifier("mnist")
        except CheckpointError:
            return None
        pixels = ((self._samples(self.net, JUDGED, 1000) + 1) * 127.5).round().byte().cpu()
        _, logits = judge.extract(data.fitted(pixels, judge.config.size, 1))
        share = float((logits.softmax(1).amax(1) > SURE).double().mean())
        return share, 1.96 * math.sqrt(max(share * (1 - share), 1 / JUDGED) / JUDGED)

    def _table(self, share: float, half: float) -> Table:
        row = (f"{self.rows[-1]['images']:,}", f"{100 * share:.0f} % ± {100 * half:.0f}")
        note = (
            f"Share of n = {JUDGED} samples in which the shipped classifier gives one digit more "
            f"than {SURE:.0%}, with its 95 % interval; the samples are made larger for it."
        )
        return Table("Are they digits?", ("pictures seen", "sure"), (row,), note)

    def _said(self) -> tuple[str, ...]:
        """What to look for in the result, and what to try next."""
        words = [
            "The weights as they are jump with each step while the learning rate is high; their "
            "average (EMA) doesn't, so it draws better digits. At the end the two agree.",
            "At large t, x̂₀ is the mean of all digits of its class first, and at small t it is "
            "sharp soon: the loss at small t falls first.",
            "Go on with a tenth of the learning rate: the loss falls once more, as smaller steps "
            "no longer jump over the bottom.",
        ]
        if self.asked.pictures < 1000:
            words.append("So few pictures can be learned by heart: compare with “Is it copying?”.")
        return tuple(words)
