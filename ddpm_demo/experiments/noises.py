"""Which noise?: the forward process with other noise, and a model sampled with other noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import SampleConfig
from ddpm_demo.diffusion import KINDS, At, Intervention, Schedule, State, Term
from ddpm_demo.experiments.asked import OTHER_NOISES, Noises
from ddpm_demo.experiments.tools import Panel, Plot, Report, Sheet, Table, Tools, Words, unseen
from ddpm_demo.inference.generate import timesteps_of
from ddpm_demo.media import convert
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.zoo import available, facts

N, STEPS = 8, 10
VALUES = 20_000  # how many values a histogram has
LOOKS = (1, 3, 10, 100)  # the t of the histograms
BINS, EDGE = 60, 3.6


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform noise from -sqrt(3) to sqrt(3), which has variance 1."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(3)


def coin(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise that is -1 or 1, like the toss of a coin."""
    return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1


DRAW: dict[str, Callable[..., Tensor]] = {**KINDS, "uniform": uniform, "coin": coin}
assert tuple(DRAW) == OTHER_NOISES


def cost(asked: Noises, per_call: Callable[[str, int], float]) -> float:
    names = (asked.model, *siblings(asked.model))
    return len(DRAW) * STEPS * sum(per_call(name, N) for name in names) + 1


def siblings(model: str) -> list[str]:
    """The shipped models of the same data and size that were trained with another noise."""
    known = {}
    for name in available():
        try:
            known[name] = facts(name)
        except (OSError, ValueError):  # its files are broken: it can't be chosen either
            continue
    own = known.get(model)
    return [
        name
        for name, about in known.items()
        if own
        and about.diffusion.noise != own.diffusion.noise
        and about.info.get("dataset") == own.info.get("dataset")
        and about.config.size == own.config.size
        and not about.info.get("base")  # a fine-tuned one,
        and not about.info.get("teacher")  # nor a student
    ]


@dataclass
class OtherNoise(Intervention):
    """Draws the sampler's z from another distribution."""

    draw: Callable[..., Tensor]
    generator: torch.Generator

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        def drawn(term: Term) -> Term:
            z = self.draw(tuple(term.tensor.shape), self.generator).to(term.tensor)
            return term._replace(tensor=z)

        return tuple(drawn(term) if term.name == "z" else term for term in line)


def noise_of_chain(kind: str, schedule: Schedule, t: int, seed: int) -> Tensor:
    """(VALUES,) the noise in x_t after t steps of the forward process, scaled to variance 1."""
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(VALUES, 1, 1, 1)
    for step in range(1, t + 1):
        x = schedule.q_step(x, step, DRAW[kind]((VALUES, 1, 1, 1), g))
    return x.flatten() / math.sqrt(1 - float(schedule.alpha_bar[t]))


def kurtosis(values: Tensor) -> tuple[float, float]:
    """The excess kurtosis, which is 0 for a Gaussian, and half the width of a 95 % interval.

    The interval holds for n Gaussian values: 1.96 sqrt(24 / n).
    """
    z = (values - values.mean()) / values.std()
    return float(z.double().pow(4).mean()) - 3, 1.96 * math.sqrt(24 / len(values))


def _histogram(kind: str, values: Tensor, t: int) -> Plot:
    counts = torch.histc(values, BINS, -EDGE, EDGE) / len(values) * BINS / (2 * EDGE)
    middles = [(k + 0.5) * 2 * EDGE / BINS - EDGE for k in range(BINS)]
    bell = [math.exp(-(m**2) / 2) / math.sqrt(2 * math.pi) for m in middles]
    lines = {kind: (middles, counts.tolist()), "N(0, 1)": (middles, bell)}
    return Plot(f"t = {t}", line_plot(lines, "noise in x_t", "density"))


def run(asked: Noises, tools: Tools) -> Iterator[Report]:
    schedule = Schedule.linear()
    plots: list[Plot] = []
    rows: list[tuple[str, ...]] = []
    for k, t in enumerate(LOOKS):
        values = noise_of_chain(asked.noise, schedule, t, asked.seed)
        plots.append(_histogram(asked.noise, values, t))
        found, half = kurtosis(values)
        said = f"from a Gaussian, {unseen(VALUES)}" if abs(found) < half else ""
        rows.append((str(t), f"{found:.2f} ± {half:.2f}", said))
        yield Report(0.02 * k, f"The noise after {t} steps", tuple(plots))
    models = {name: tools.load(name) for name in (asked.model, *siblings(asked.model))}
    ends: dict[tuple[str, str], np.ndarray] = {}
    runs = [(name, kind) for name in models for kind in DRAW]
    for k, (name, kind) in enumerate(runs):
        for done, pictures in _drawn(models[name], kind, asked, tools):
            ends[name, kind] = pictures
            part = 0.1 + 0.9 * (k + done) / (len(runs) + 0.001)
            line = f"Sampling {name} with {kind} noise"
            yield Report(part, line, (*plots, _sheet(models, ends)))
    note = (
        f"Excess kurtosis of n = {VALUES:,} values; that of a Gaussian is 0, and the interval is "
        "where n Gaussian values are in 95 % of all cases. Linear schedule of T = 1000."
    )
    table = Table("How far from a Gaussian", ("t", "kurtosis", ""), tuple(rows), note)
    panels: tuple[Panel, ...] = (*plots, _sheet(models, ends), table, Words(WORDS))
    yield Report(1, "", panels, {"kurtosis": rows, "n": VALUES})


WORDS = (
    "Each step adds a little noise to what is there, and a sum of many small independent parts is "
    "nearly Gaussian, whatever the parts are: the central limit theorem. Whoever jumps to x_t in "
    "one step, as training does, gets the noise as it is.",
    "A model that is sampled with another noise than it was trained with is asked about pictures "
    "that it never saw.",
)


def _sheet(models: Mapping[str, Checkpoint], ends: Mapping[tuple[str, str], np.ndarray]) -> Sheet:
    """Rows by the noise of the sampling, columns by model."""
    cells = tuple(tuple(ends.get((name, kind)) for name in models) for kind in DRAW)
    columns = [f"{name}, trained with {one.diffusion.noise}" for name, one in models.items()]
    wide = N if len(models) == 1 else N // 2
    return Sheet("Sampled with", cells, tuple(DRAW), tuple(columns), wide=wide)


def _drawn(
    checkpoint: Checkpoint, kind: str, asked: Noises, tools: Tools
) -> Iterator[tuple[float, np.ndarray]]:
    """Sample with another noise. Yields how much of the run is done, and its pictures so far."""
    best, model = checkpoint.best, checkpoint.model.config
    steps = min(STEPS, best.start or checkpoint.diffusion.T)
    config: SampleConfig = best.but(sampler="ddpm", steps=steps, n=N, seed=asked.seed)
    g = torch.Generator().manual_seed(asked.seed)
    x_T = DRAW[kind]((N, model.channels, model.size, model.size), g)
    x_T = x_T.to(next(checkpoint.model.parameters()).device)
    state = State(tuple(timesteps_of(checkpoint, config)), 0, x_T)
    other = OtherNoise(DRAW[kind], g)
    for step in tools.generate(checkpoint, config, state=state, interventions=[other]):
        yield step.index / step.total, convert.to_uint8(step.x0_hat)
