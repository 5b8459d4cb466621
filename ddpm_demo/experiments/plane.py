"""Diffusion in two dimensions: points instead of pictures, with the same schedule and samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_demo.config import SAMPLERS
from ddpm_demo.diffusion import Denoise, Noise, Prediction, Schedule, split
from ddpm_demo.experiments.asked import Plane
from ddpm_demo.experiments.tools import (
    Panel,
    Plot,
    Report,
    Table,
    Tools,
    Words,
    alike,
    interval,
    spoken,
)
from ddpm_demo.media.plots import plane_plot

POINTS = 400  # how many points make up a shape
SPREAD = 0.05  # the standard deviation of the data around each point
SEEN, PATHS, STEPS = 300, 12, 50  # the numbers of samples, of drawn paths, and of steps
TRAIN, BATCH, PART = 1500, 256, 50
GROUPS = 6  # the number of groups of samples, for intervals
ARROWS_AT = 200  # the t at which arrows are drawn


def cost(asked: Plane, per_call: Callable[[str, int], float]) -> float:
    return 12.0


def shape(name: str) -> Tensor:
    """The points of a shape, (POINTS, 2), with a variance of about 1."""
    u = torch.linspace(0, 1, POINTS)
    half = POINTS // 2
    if name == "moons":
        a = math.pi * torch.linspace(0, 1, half)
        upper = torch.stack([a.cos() - 0.5, a.sin() - 0.25], 1)
        lower = torch.stack([0.5 - a.cos(), 0.25 - a.sin()], 1)
        return 1.4 * torch.cat([upper, lower])
    if name == "spiral":
        a = 3 * math.pi * u.sqrt()
        return 0.2 * torch.stack([a * a.cos(), a * a.sin()], 1)
    a = 2 * math.pi * (torch.arange(POINTS) % 8) / 8
    return 1.4 * torch.stack([a.cos(), a.sin()], 1)


def drawn(middles: Tensor, n: int, g: torch.Generator) -> Tensor:
    """Draw n points of the data, as pictures of one pixel with two channels: (n, 2, 1, 1)."""
    chosen = middles[torch.randint(len(middles), (n,), generator=g)]
    return (chosen + SPREAD * torch.randn(n, 2, generator=g)).view(n, 2, 1, 1)


class ExactPoints:
    """The exact denoiser of a mixture of Gaussians with deviation `SPREAD` around the middles.

    Write ab for alpha_bar. Given its middle m, x_t is N(sqrt(ab) m, (ab SPREAD^2 + 1 - ab) I). So
    the posterior of x_0 is a mixture whose means are known, and x0_hat is their weighted mean.
    """

    def __init__(self, middles: Tensor, schedule: Schedule) -> None:
        self.middles, self.schedule = middles.double(), schedule

    def log_density(self, x: Tensor, t: int) -> Tensor:
        """The log of the density of x_t, (B,), at the points x, (B, 2)."""
        ab = float(self.schedule.alpha_bar[t])
        variance = ab * SPREAD**2 + 1 - ab
        gaps = (x[:, None] - math.sqrt(ab) * self.middles).square().sum(2)
        each = -gaps / (2 * variance) - math.log(2 * math.pi * variance)
        return each.logsumexp(1) - math.log(len(self.middles))

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        x, ab = x_t.flatten(1).double(), float(self.schedule.alpha_bar[int(t[0])])
        variance = ab * SPREAD**2 + 1 - ab
        gaps = x[:, None] - math.sqrt(ab) * self.middles
        weights = (-gaps.square().sum(2) / (2 * variance)).softmax(1)
        means = self.middles + math.sqrt(ab) * SPREAD**2 / variance * gaps
        x0 = (weights[:, :, None] * means).sum(1).to(x_t.dtype).view_as(x_t)
        return split(x0, x_t, self.schedule.at(self.schedule.alpha_bar, t, x_t), "x0")


class SmallNet(nn.Module):
    """A network of three layers that predicts eps."""

    def __init__(self, schedule: Schedule, width: int = 96) -> None:
        super().__init__()
        self.schedule = schedule
        sizes = (2 + 16, width, width, 2)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, 2, 1, 1); t: (B,) in 1..T."""
        waves = (t[:, None] / self.schedule.T) * math.pi * 2 ** torch.arange(8) / 4
        inside = torch.cat([x.flatten(1), waves.sin(), waves.cos()], 1)
        return self.layers(inside).view_as(x)

    @torch.no_grad()
    def see(self, x_t: Tensor, t: Tensor) -> Prediction:
        ab = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        return split(self(x_t, t), x_t, ab, "eps")


class _Asked:
    """Makes a `Denoise` of a `SmallNet`, whose own `__call__` belongs to `nn.Module`."""

    def __init__(self, net: SmallNet) -> None:
        self.net, self.schedule = net, net.schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        return self.net.see(x_t, t)


def train(net: SmallNet, middles: Tensor, seed: int) -> Iterator[float]:
    """Train a network, and yield now and then how much of the training is done."""
    g, schedule = torch.Generator().manual_seed(seed), net.schedule
    for p in net.parameters():  # with our own generator, so that the global one isn't used
        with torch.no_grad():
            fan = p.shape[-1]
            p.copy_((torch.rand(p.shape, generator=g) * 2 - 1) / math.sqrt(fan))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(TRAIN):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / TRAIN)
        x_0, eps = drawn(middles, BATCH, g), torch.randn(BATCH, 2, 1, 1, generator=g)
        t = torch.randint(1, schedule.T + 1, (BATCH,), generator=g)
        with torch.enable_grad():
            loss = (net(schedule.q_sample(x_0, t, eps), t) - eps).square().mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        if step % PART == PART - 1:
            yield (step + 1) / TRAIN


def ways(denoise: Denoise, sampler: str, seed: int, n: int = SEEN) -> Tensor:
    """Sample n points, and return their places at each step, (STEPS + 1, n, 2)."""
    noise = Noise("gaussian", range(seed, seed + n))
    options: dict[str, Any] = {"eta": 0.0} if sampler == "ddim" else {}
    timesteps = denoise.schedule.timesteps(min(STEPS, denoise.schedule.T), "trailing")
    steps = SAMPLERS[sampler](denoise, noise.draw((n, 2, 1, 1)), timesteps, noise=noise, **options)
    return torch.stack([step.x_t.flatten(1) for step in steps])


def energy(a: Tensor, b: Tensor) -> float:
    """The unbiased energy distance of two sets of points (Székely & Rizzo 2013, eq. 1)."""
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return float(2 * torch.cdist(a, b).mean() - within)


def _distance(points: Tensor, middles: Tensor, seed: int) -> tuple[float, float]:
    """The energy distance from fresh data: its mean and interval over groups of points."""
    g = torch.Generator().manual_seed(seed)
    return interval(
        [energy(part, drawn(middles, len(part), g).flatten(1)) for part in points.chunk(GROUPS)]
    )


def _field(denoises: dict[str, Denoise], t: int) -> Plot:
    """Arrows along -eps_hat, which is the direction of the score."""
    line = torch.linspace(-2.2, 2.2, 15)
    grid = torch.cartesian_prod(line, line).view(-1, 2, 1, 1)
    arrows = {}
    for name, denoise in denoises.items():
        eps = denoise(grid, torch.full((len(grid),), t)).eps.flatten(1)
        arrows[name] = torch.cat([grid.flatten(1), -0.12 * eps], 1).tolist()
    return Plot(f"Which way leads to the data, at t = {t}", plane_plot({}, arrows=arrows))


def run(asked: Plane, tools: Tools) -> Iterator[Report]:
    own = asked.own()
    middles = torch.tensor(own) if own else shape(asked.shape)
    schedule = Schedule.linear()
    g = torch.Generator().manual_seed(asked.seed)
    data = drawn(middles, SEEN, g).flatten(1)
    exact = ExactPoints(middles, schedule)
    panels: list[Panel] = [Plot("The data", plane_plot({"data": data.tolist()}))]
    yield Report(0.02, "The exact denoiser", tuple(panels))
    distances = {"data": _distance(data, middles, asked.seed)}
    runs: list[tuple[str, str, Denoise]] = [("exact", "ddim", exact), ("exact", "ddpm", exact)]
    for name, sampler, denoise in runs:
        distances |= _show(panels, (name, sampler, denoise), middles, asked.seed)
        yield Report(0.1, "The exact denoiser", tuple(panels))
    net = SmallNet(schedule)
    for done in train(net, middles, asked.seed):
        yield Report(0.15 + 0.7 * done, "A small network learns", tuple(panels))
    learned = _Asked(net)
    for sampler in ("ddim", "ddpm"):
        distances |= _show(panels, ("network", sampler, learned), middles, asked.seed)
        yield Report(0.95, "The network", tuple(panels))
    panels.append(_field({"exact": exact, "network": learned}, ARROWS_AT))
    note = (
        f"Energy distance from fresh points of the data: {GROUPS} groups of {SEEN // GROUPS}, mean "
        f"with its 95 % interval. 0 is no difference. {alike(distances, GROUPS)}"
    )
    rows = [(name, spoken(*found)) for name, found in distances.items()]
    panels += [
        Table("How near to the data", ("points", "distance"), tuple(rows), note),
        Words(WORDS),
    ]
    yield Report(1, "", tuple(panels), {"distance": rows, "n": SEEN, "groups": GROUPS})


WORDS = (
    "In two dimensions the data fill a good part of the plane, and any network sees soon which "
    "way leads to them. Pictures don't: they are a thin film in a space of 784 or more dimensions. "
    "The schedule, the samplers and their paths carry over; how easy it looks does not.",
)


def _show(
    panels: list[Panel], what: tuple[str, str, Denoise], middles: Tensor, seed: int
) -> dict[str, tuple[float, float]]:
    """Do a run, and add its plot to the panels. Returns its distance, by its name."""
    name, sampler, denoise = what
    way = ways(denoise, sampler, seed)
    title = f"{SAMPLERS[sampler].label}, {name}"
    paths = [way[:, k].tolist() for k in range(PATHS)]
    panels.append(Plot(title, plane_plot({"samples": way[-1].tolist()}, paths)))
    return {title: _distance(way[-1], middles, seed)}
