"""Noise space: from a picture to its noise and back, and what lies between two noises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import SAMPLERS, ModelConfig, SampleConfig
from ddpm_demo.diffusion import Denoise, Noise, State
from ddpm_demo.diffusion.samplers.ddim import invert
from ddpm_demo.experiments.asked import Between
from ddpm_demo.experiments.tools import (
    Film,
    Panel,
    Report,
    Sheet,
    Table,
    Tools,
    Words,
    interval,
    spoken,
    unseen,
)
from ddpm_demo.media import convert
from ddpm_demo.media.convert import square
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.zoo import available, facts

N = 4  # how many pictures are inverted
WAY, SIDE = 25, 5  # pictures from one noise to another, and pictures along a side of the grid
EACH, FPS = 3, 12  # the row shows every third of these pictures; frames a second of the film
BACK = (5, 10, 20)  # the numbers of steps of the inversions
STEPS = 10  # the number of steps of the other runs
LEVELS = (0.3, 0.6, 0.9)  # the shares of T at which pictures are mixed
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def cost(asked: Between, per_call: Callable[[str, int], float]) -> float:
    there_and_back = 2 * sum(BACK) * per_call(asked.model, N)
    others = [N] * len(relatives(asked.model))
    batches = (WAY, SIDE**2, 10, 1, *[len(WEIGHTS)] * len(LEVELS), *others)
    return there_and_back + STEPS * sum(per_call(asked.model, n) for n in batches)


def relatives(model: str) -> list[str]:
    """A model's base, and the models that were fine-tuned from it. Empty if there are none."""
    base: dict[str, str] = {}
    for name in available():
        try:
            about = facts(name)
        except (OSError, ValueError):  # its files are broken, so nobody can choose it
            continue
        base[name] = str(about.info.get("base") or name)
    wanted = base.get(model, model)
    tuned = [name for name, root in base.items() if root == wanted != name]
    return [wanted, *tuned] if tuned and wanted in base else []


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """A point between a and b on a great circle (Shoemake 1985).

    It has about the same length as a and b, so it looks like noise to the network.
    """
    cos = float((a.flatten() @ b.flatten()) / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cos)))
    if angle < 1e-6:
        return a + weight * (b - a)
    return (math.sin((1 - weight) * angle) * a + math.sin(weight * angle) * b) / math.sin(angle)


def there_and_back(
    denoise: Denoise, x_0: Tensor, timesteps: Sequence[int], rounds: int = 1
) -> Iterator[Tensor]:
    """Yield x on its way up to the noise of x_0 and down by DDIM; `rounds` is as in `invert`."""
    noise = Noise("gaussian", range(len(x_0)))
    x = x_0
    for up in invert(denoise, x_0, timesteps, rounds=rounds):
        x = up.x_t
        yield x
    for step in SAMPLERS["ddim"](denoise, x, timesteps, noise=noise, eta=0.0):
        yield step.x_t


class _Lab:
    """A model, with the methods to draw with it that the experiment needs."""

    def __init__(self, asked: Between, tools: Tools) -> None:
        self.asked, self.tools = asked, tools
        self.checkpoint: Checkpoint = tools.load(asked.model)
        net = self.checkpoint.model.config
        self.shape, self.classes = (net.channels, net.size, net.size), net.num_classes
        self.device = next(self.checkpoint.model.parameters()).device
        best = self.checkpoint.best
        steps = min(STEPS, best.start or self.checkpoint.diffusion.T)
        self.config = best.but(sampler="ddim", steps=steps, eta=0.0, seed=asked.seed, guidance=1.0)
        own = (asked.label % self.classes,) if self.classes else None
        self.config = replace(self.config, labels=own)
        self.circle = np.zeros((0, net.size, net.size, net.channels), np.uint8)  # see _circle

    def noise(self, seeds: Sequence[int]) -> Tensor:
        kind = self.checkpoint.diffusion.noise
        return Noise(kind, seeds).draw((len(seeds), *self.shape)).to(self.device)

    def denoise(self, y: Tensor | None) -> Denoise:
        return self.tools.denoiser(
            self.checkpoint.model, self.checkpoint.diffusion, clip=False, y=y
        )

    def draw(self, x: Tensor, config: SampleConfig, start: int | None = None) -> Iterator[Tensor]:
        """Yield x0_hat on the way down from x, which is at t = start, or at T without a start."""
        if start is not None:
            config = config.but(start=start, steps=min(config.steps, start))
        schedule = self.denoise(None).schedule
        state = State(tuple(schedule.chosen(config)), 0, x)
        for step in self.tools.generate(self.checkpoint, replace(config, n=len(x)), state=state):
            yield step.x0_hat


def run(asked: Between, tools: Tools) -> Iterator[Report]:
    lab, panels = _Lab(asked, tools), list[Panel]()
    config = lab.checkpoint.model.config
    dataset = str(lab.checkpoint.info.get("dataset"))
    test = tools.data(dataset, config.size, config.channels, train=False)
    chosen = (asked.picture + torch.arange(N)) % len(test)
    x_0, y = test.batch(chosen).to(lab.device), test.labels[chosen].to(lab.device)
    y[y < 0] = lab.classes  # pictures without a label have the null class
    if asked.own:
        x_0[0], y[0] = _own(asked.own, config), lab.classes
    parts = (
        ("Between two noises", _circle(lab)),
        ("Between four noises", _four(lab)),
        ("The same noise, and each class", _each_class(lab)),
        ("The same noise, and other models", _others(lab)),
        ("Between two pictures", _mixed(lab, x_0[:2])),
        ("There and back", _inverted(lab, x_0, y)),
    )
    numbers: list[tuple[str, str]] = []
    for k, (words, part) in enumerate(parts):
        shown: tuple[Panel, ...] = ()
        for done, shown in enumerate(part):
            yield Report((k + done / (done + STEPS)) / len(parts), words, (*panels, *shown))
        panels += shown
    for panel in panels:
        if isinstance(panel, Table):
            numbers = [(steps, error) for steps, error, _ in panel.rows]
    film = Film("From one noise to another, and back", lab.circle, FPS)
    yield Report(1, "", (film, *panels, Words(WORDS)), {"error": numbers, "n": N})


def _circle(lab: _Lab) -> Iterator[tuple[Panel, ...]]:
    """Pictures from noises on a great circle. Played there and back, they are the film."""
    a, b = lab.noise([lab.asked.seed, lab.asked.seed + 1])
    x = torch.stack([slerp(a, b, k / (WAY - 1)) for k in range(WAY)])
    for seen in lab.draw(x, lab.config):
        yield (_row("From one noise to another, on a great circle", seen[::EACH]),)
    there = convert.to_uint8(seen)
    lab.circle = np.concatenate([there, there[-2:0:-1]])


def _four(lab: _Lab) -> Iterator[tuple[Panel, ...]]:
    """Pictures from noises between four noises, one at each corner of the sheet."""
    a, b, c, d = lab.noise(range(lab.asked.seed, lab.asked.seed + 4))
    shares = [k / (SIDE - 1) for k in range(SIDE)]
    x = torch.stack([slerp(slerp(a, b, v), slerp(c, d, v), u) for u in shares for v in shares])
    for seen in lab.draw(x, lab.config):
        yield (Sheet("Between four noises", ((convert.to_uint8(seen),),), wide=SIDE),)


def _others(lab: _Lab) -> Iterator[tuple[Panel, ...]]:
    """Pictures from the same noises by a model and its fine-tuned relatives, if it has any."""
    names, cells = relatives(lab.asked.model), list[tuple[np.ndarray]]()
    x = lab.noise(range(lab.asked.seed, lab.asked.seed + N))
    for name in names:
        other = _Lab(replace(lab.asked, model=name), lab.tools)
        config = replace(other.config, labels=other.checkpoint.best.labels)
        for seen in other.draw(x, config):
            shown = (*cells, (convert.to_uint8(seen),))
            yield (Sheet("The same noise, and other models", shown, tuple(names), wide=N),)
        cells.append((convert.to_uint8(seen),))


def _own(path: str, config: ModelConfig) -> Tensor:
    """The visitor's own picture, fitted to the model: (C, H, W) in [-1, 1]."""
    picture = square(open_image(path), config.size).convert("L" if config.channels == 1 else "RGB")
    return convert.to_tensor(np.asarray(picture).reshape(1, config.size, config.size, -1))[0]


def _each_class(lab: _Lab) -> Iterator[tuple[Panel, ...]]:
    """Pictures from one noise, one for each class, if the model has classes."""
    if lab.classes < 2:
        return
    every = tuple(range(min(10, lab.classes)))
    (a,) = lab.noise([lab.asked.seed])
    config = replace(lab.config, labels=every, seed=0)
    for seen in lab.draw(a.expand(len(every), *a.shape), config):
        yield (_row("The same noise, and each class", seen),)


def _inverted(lab: _Lab, x_0: Tensor, y: Tensor) -> Iterator[tuple[Panel, ...]]:
    """Test pictures on their way up to their noise and back, and how much they changed."""
    denoise = lab.denoise(y if lab.classes else None)
    rows: list[tuple[str, str, str]] = []
    before: tuple[float, float] | None = None
    shown: list[tuple[np.ndarray]] = [(convert.to_uint8(x_0),)]
    for steps in (steps for steps in BACK if steps <= denoise.schedule.T):
        way = denoise.schedule.timesteps(steps, "trailing")
        seen = x_0
        for x in there_and_back(denoise, x_0, way):
            seen = x
            now = (*shown, (convert.to_uint8(seen),))
            names = ("test pictures", *(f"back in {n} steps" for n, *_ in rows), "under way")
            yield (Sheet("Up to the noise, and back", now, names, wide=N),)
        shown.append((convert.to_uint8(seen),))
        gaps = (seen - x_0).square().flatten(1).mean(1).sqrt()
        mean, half = interval(gaps.tolist())
        same = before is not None and abs(mean - before[0]) < half + before[1]
        said = unseen(N) if same else ""
        rows.append((str(steps), spoken(mean, half), said))
        before = mean, half
    names = ("test pictures", *(f"back in {n} steps" for n, *_ in rows))
    note = f"Root mean square of pixels from −1 to 1: n = {N} pictures, with a 95 % interval."
    sheet = Sheet("Up to the noise, and back", tuple(shown), names, wide=N)
    yield (sheet, Table("What is lost on the way", ("steps", "error", ""), tuple(rows), note))


WORDS = (
    "DDIM adds no noise, so each picture has one noise that it comes from. The way there is walked "
    "in steps, each with a small error, which is smaller the more steps there are.",
    "Noise of many dimensions is nearly always of one length. A straight line between two noises "
    "is shorter in its middle; a great circle is not.",
)


def _row(title: str, x: Tensor) -> Sheet:
    return Sheet(title, ((convert.to_uint8(x),),), wide=len(x))


def _mixed(lab: _Lab, x_0: Tensor) -> Iterator[tuple[Panel, ...]]:
    """Mixes of two pictures (Ho et al. 2020, section 4.3): both get the same noise."""
    lab.config = replace(lab.config, labels=None)
    a, b = (convert.to_uint8(x[None]) for x in x_0)
    t = max(1, round(lab.asked.level * lab.checkpoint.diffusion.T))
    title = f"Two pictures, mixed at t = {t} with weight {lab.asked.weight:g}"
    names = ("first", "mixed", "second")
    for seen in _mixes(lab, x_0, t, [lab.asked.weight]):
        one = Sheet(title, ((a, convert.to_uint8(seen), b),), (), names, wide=1)
        yield (one,)
    cells: list[tuple[np.ndarray]] = []
    times = [max(1, round(level * lab.checkpoint.diffusion.T)) for level in LEVELS]
    for k, t in enumerate(times):
        for seen in _mixes(lab, x_0, t, WEIGHTS):
            now, rows = (
                (*cells, (convert.to_uint8(seen),)),
                tuple(f"t = {t}" for t in times[: k + 1]),
            )
            words = "Other t, and weights from 0 to 1"
            yield one, Sheet(words, now, rows, wide=len(WEIGHTS))
        cells.append((convert.to_uint8(seen),))


def _mixes(lab: _Lab, x_0: Tensor, t: int, weights: Sequence[float]) -> Iterator[Tensor]:
    """Yield x0_hat on the way down from mixes of two pictures at t."""
    schedule, eps = lab.denoise(None).schedule, lab.noise([lab.asked.seed])
    first, second = schedule.q_sample(x_0, t, eps.expand_as(x_0))
    yield from lab.draw(torch.stack([(1 - w) * first + w * second for w in weights]), lab.config, t)
