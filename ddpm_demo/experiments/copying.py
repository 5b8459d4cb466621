"""Is it copying?: how close generated pictures are to the training pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ddpm_demo.config import require
from ddpm_demo.data import Images
from ddpm_demo.evaluation.classifier import Classifier, judge_of
from ddpm_demo.experiments import few
from ddpm_demo.experiments.asked import Copying
from ddpm_demo.experiments.nearest import Nearest, nearest
from ddpm_demo.experiments.tools import (
    Panel,
    Plot,
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
from ddpm_demo.media.plots import line_plot
from ddpm_demo.models.checkpoint import Checkpoint

SHOWN, N, TEST, K = 8, 24, 200, 5
BINS = 20
FEATURES, AMONG = "features", 40  # by features, only the 40 nearest in pixels are compared


def cost(asked: Copying, per_call: Callable[[str, int], float]) -> float:
    return 20 * per_call(asked.model, N) + 3


@dataclass
class _Found:
    """The pictures so far, and their nearest ones in the pool, by the source of the pictures."""

    pool: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    near: dict[str, Nearest] = field(default_factory=dict)

    def look(self, name: str, pixels: torch.Tensor) -> None:
        self.near[name] = nearest(pixels, self.pool, min(K, len(self.pool)))

    def look_by(self, judge: Classifier) -> None:
        """Of the pictures that are nearest in pixels, find the nearest in a classifier's features.

        A distance is the root mean square over features.
        """
        self.pictures[FEATURES] = self.pictures["made"][:SHOWN]
        pixels = _pixels(self.pictures[FEATURES])
        places = nearest(pixels, self.pool, min(AMONG, len(self.pool))).places
        with torch.no_grad():
            own, _ = judge.extract(pixels)
            near, _ = judge.extract(self.pool[places.flatten()])
        gaps = (near.view(*places.shape, -1) - own[:, None]).square().mean(2).sqrt()
        order = gaps.sort(dim=1, stable=True)
        best = order.indices[:, :K]
        self.near[FEATURES] = Nearest(places.gather(1, best), order.values[:, :K])

    def sheet(self, name: str, title: str) -> Sheet:
        """The first pictures, with the nearest ones below each."""
        shown = self.pictures[name][:SHOWN]
        rows: list[tuple[np.ndarray | None, ...]] = [tuple(p[None] for p in shown)]
        notes: list[tuple[str, ...]] = [("",) * len(shown)]
        if name in self.near:
            index, distance = self.near[name]
            for k in range(index.shape[1]):
                near = self.pool[index[: len(shown), k]].permute(0, 2, 3, 1).numpy()
                rows.append(tuple(p[None] for p in near))
                notes.append(tuple(f"{d:.2f}" for d in distance[: len(shown), k].tolist()))
        names = ("made", "nearest", "second", "third", "fourth", "fifth")
        return Sheet(title, tuple(rows), names[: len(rows)], (), tuple(notes), 1)


def _drawn(
    checkpoint: Checkpoint, n: int, asked: Copying, tools: Tools
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield how much of a run is done, and its pictures so far."""
    config = checkpoint.best.but(n=n, seed=asked.seed)
    for step in tools.generate(checkpoint, config):
        yield step.index / step.total, convert.to_uint8(step.x0_hat)


def run(asked: Copying, tools: Tools) -> Iterator[Report]:
    checkpoint = tools.load(asked.model)
    config, dataset = checkpoint.model.config, str(checkpoint.info.get("dataset"))
    found, title = _Found(), f"{SHOWN} of {asked.model}, and what is nearest to them"
    for done, found.pictures["made"] in _drawn(checkpoint, N, asked, tools):
        yield Report(0.5 * done, f"Drawing {N} pictures", (found.sheet("made", title),))
    panels: tuple[Panel, ...] = (found.sheet("made", title),)
    yield Report(0.5, "Looking for the training pictures", panels)
    train = tools.data(dataset, config.size, config.channels, train=True)
    test = tools.data(dataset, config.size, config.channels, train=False)
    require(len(train) >= K, "number of training pictures", len(train), f"{K} or more")
    found.pool = train.pixels
    found.look("made", _pixels(found.pictures["made"]))
    panels = (found.sheet("made", title),)
    yield Report(0.6, "Looking for what is nearest to test pictures", panels)
    found.look("test", test.pixels[:TEST])
    for report in _copies(asked, tools, found, checkpoint, train):
        yield Report(0.7 + 0.25 * report, "The exact denoiser", panels)
    panels += _result(asked, found)
    yield Report(0.95, "Looking at them as a classifier does", panels)
    panels += _by_features(found, checkpoint)
    numbers: dict[str, Any] = {
        name: {"n": len(near.places), "distances": near.distance[:, 0].tolist()}
        for name, near in found.near.items()
    }
    more: tuple[Panel, ...] = ()
    for at in few.run(asked.seed, tools):
        more = at.panels or more
        numbers |= at.numbers
        yield Report(0.95 + 0.05 * at.done, at.line, panels + more)
    yield Report(1, "", panels + more, numbers)


def _by_features(found: _Found, checkpoint: Checkpoint) -> tuple[Panel, ...]:
    """The nearest pictures by the classifier's features, if the data have a classifier."""
    try:
        found.look_by(judge_of(checkpoint))
    except ValueError:
        return ()
    title = f"For the classifier: of the {AMONG} nearest in pixels, those with the nearest features"
    return (found.sheet(FEATURES, title),)


def _pixels(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


def _copies(
    asked: Copying, tools: Tools, found: _Found, checkpoint: Checkpoint, train: Images
) -> Iterator[float]:
    """Sample the exact denoiser of some training pictures, from the same seeds."""
    from ddpm_demo.config import DiffusionConfig
    from ddpm_demo.models.exact import Exact

    process = DiffusionConfig(checkpoint.diffusion.T, "cosine", predict="x0")
    pictures = train.batch(torch.arange(min(asked.pictures, len(train))))
    model = Exact(pictures, process).eval().to(next(checkpoint.model.parameters()).device)
    info = {"sample": {"sampler": "ddim", "steps": min(20, process.T)}}
    exact = Checkpoint(model, process, info, "exact")  # type: ignore[arg-type]
    for done, found.pictures["exact"] in _drawn(exact, SHOWN, asked, tools):
        yield done
    found.look("exact", _pixels(found.pictures["exact"]))


def _result(asked: Copying, found: _Found) -> tuple[Panel, ...]:
    """The exact denoiser's pictures, the histogram, and the table."""
    said = f"The exact denoiser of the first {asked.pictures} training pictures"
    names = {"made": f"by {asked.model}", "test": "test pictures", "exact": "exact denoiser"}
    found_of = {name: found.near[name].distance[:, 0] for name in names}
    top = float(torch.cat(list(found_of.values())).max()) * 1.05
    lines = {}
    for name, words in names.items():
        counts = torch.histc(found_of[name].float(), BINS, 0, top) / len(found_of[name])
        middles = [(k + 0.5) * top / BINS for k in range(BINS)]
        lines[words] = (middles, counts.tolist())
    means = {name: interval(values.tolist()) for name, values in found_of.items()}
    rows = tuple((names[name], str(len(found_of[name])), spoken(*means[name])) for name in names)
    table = Table(
        "Distance to the nearest training picture",
        ("pictures", "n", "mean"),
        rows,
        f"Root mean square of pixels from −1 to 1, over all {len(found.pool):,} training pictures; "
        "mean with its 95 % interval.",
    )
    plot = Plot("How far the nearest training picture is", line_plot(lines, "distance", "share"))
    return found.sheet("exact", said), plot, table, Words((_verdict(means), EXACT))


EXACT = (
    "The exact denoiser is the best there can be for its few pictures, and gives back one of them "
    "each time. What is new in a network's pictures comes from where it is not exact."
)


def _verdict(means: dict[str, tuple[float, float]]) -> str:
    (made, a), (test, b) = means["made"], means["test"]
    if abs(made - test) < a + b:
        return (
            "Generated pictures are as far from the training pictures as test pictures are, which "
            f"the model never saw: {unseen(N)} and {TEST}."
        )
    if made > test:
        return "Generated pictures are farther from the training pictures than test pictures are."
    return (
        "Generated pictures are nearer to the training pictures than test pictures are. That alone "
        "is no copying: smooth pictures are near to many. Look whether the nearest is the same."
    )
