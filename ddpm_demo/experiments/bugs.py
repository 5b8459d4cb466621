"""Well-known bugs. A changed setting or an `Intervention` puts each of them into a run.

To add one, write a row of `BUGS`. `benchmarks.bugs` measures how much worse each makes the
pictures, and writes the results to `recorded.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ddpm_demo.config import DiffusionConfig, SampleConfig
from ddpm_demo.diffusion import (
    At,
    Intervention,
    NoiseAtEnd,
    Prediction,
    Schedule,
    Term,
    Terms,
    split,
)
from ddpm_demo.models.checkpoint import Checkpoint

RECORD = Path(__file__).with_name("recorded.json")


class Sick(NamedTuple):
    """The parts of a run with a bug."""

    checkpoint: Checkpoint
    config: SampleConfig
    interventions: Sequence[Intervention] = ()


Break = Callable[[Checkpoint, SampleConfig, Callable[[str], Checkpoint]], Sick]


@dataclass(frozen=True)
class Bug:
    """A row of `BUGS`.

    Attributes:
        name: its name in settings; `asked.BUG_NAMES` lists all names.
        title: what is wrong.
        why: two sentences about the consequences.
        file: the file of our source with the right line.
        right: the right line.
        wrong: the wrong line that makes the bug.
        put: makes the wrong run from the right one.
        model: the model that draws the pictures.
        changes: changes to the model's own sampling settings, in both runs.
    """

    name: str
    title: str
    why: str
    file: str
    right: str
    wrong: str
    put: Break
    model: str = "mnist"
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self, checkpoint: Checkpoint, seed: int, n: int) -> SampleConfig:
        """The right run."""
        config = checkpoint.best.but(**{"seed": seed, "n": n, **self.changes})
        most = config.start or checkpoint.diffusion.T
        return config.but(steps=min(config.steps, most))


# --- what breaks a run ---------------------------------------------------------------------------


@dataclass
class NoRoot(Intervention):
    """Squares the coefficients of the terms: alpha_bar instead of sqrt(alpha_bar)."""

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        return tuple(term._replace(coefficient=term.coefficient**2) for term in line)


@dataclass
class FullEps(Intervention):
    """DDIM adds noise but still keeps all of eps_hat, so the variance of x_s is too large."""

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        rest = math.sqrt(1 - float(at.schedule.alpha_bar[at.s]))
        return tuple(t._replace(coefficient=rest) if t.name == "eps_hat" else t for t in line)


@dataclass
class HalfRange(Intervention):
    """Clips x0_hat to [0, 1], as if pictures had that range."""

    def predicted(self, schedule: Schedule, x: Tensor, t: int, seen: Prediction) -> Prediction:
        return split(seen.x0.clamp(0, 1), x, schedule.at(schedule.alpha_bar, t, x), "x0")


@dataclass
class SameNoise(Intervention):
    """Adds the noise of the first step in every step."""

    first: Tensor | None = None

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        for term in line:
            if term.name == "z" and self.first is None:
                self.first = term.tensor
        return tuple(t._replace(tensor=self.first) if t.name == "z" else t for t in line)  # type: ignore[arg-type]


def _by(*interventions: Callable[[], Intervention]) -> Break:
    """A bug made by interventions."""
    return lambda checkpoint, run, _: Sick(checkpoint, run, [each() for each in interventions])


def _with(**process: Any) -> Break:
    """A bug in the settings of the diffusion process: the sampler gets these wrong ones."""

    def put(checkpoint: Checkpoint, run: SampleConfig, _: Any) -> Sick:
        changed = dataclasses.replace(checkpoint.diffusion, **process)
        return Sick(dataclasses.replace(checkpoint, diffusion=changed), run)

    return put


def _unclipped(checkpoint: Checkpoint, run: SampleConfig, _: Any) -> Sick:
    return Sick(checkpoint, run.but(clip=False))


def _nearest(schedule: Schedule, alpha_bar: float) -> int:
    """The t >= 1 whose alpha_bar is nearest to this one."""
    return 1 + int((schedule.alpha_bar[1:] - alpha_bar).abs().argmin())


def _short(checkpoint: Checkpoint, run: SampleConfig, _: Any) -> Sick:
    """Start from pure noise at the alpha_bar at which T = 200, with the betas of T = 1000, ends."""
    left = float(Schedule.from_config(DiffusionConfig(200)).alpha_bar[-1])
    start = _nearest(Schedule.from_config(checkpoint.diffusion), left)
    return Sick(checkpoint, run.but(start=start, steps=min(run.steps, start)))


def _steep(checkpoint: Checkpoint, run: SampleConfig, _: Any) -> Sick:
    """Use the t with the alpha_bar of a linear beta up to 0.2. Most of them are pure noise."""
    steep = Schedule.from_config(DiffusionConfig(beta_end=0.2))
    own = Schedule.from_config(checkpoint.diffusion)
    wanted = [_nearest(own, float(steep.alpha_bar[t])) for t in steep.timesteps(run.steps)]
    way, above = [], own.T + 1
    for left, t in zip(reversed(range(len(wanted))), wanted, strict=True):
        above = max(min(t, above - 1), left + 1)
        way.append(above)
    return Sick(checkpoint, dataclasses.replace(run, timesteps=tuple(way)))


def _base(checkpoint: Checkpoint, run: SampleConfig, load: Callable[[str], Checkpoint]) -> Sick:
    base = load(checkpoint.info.get("base", checkpoint.name))
    return Sick(base, run.but(labels=None))


def _raw(checkpoint: Checkpoint, run: SampleConfig, load: Callable[[str], Checkpoint]) -> Sick:
    return Sick(load(f"{LINEAR}-raw"), run)


LINEAR = "mnist-linear"  # a small model with Ho et al.'s schedule
DDPM = {"sampler": "ddpm", "steps": 10, "variance": "beta_tilde"}
LAPLACE: dict[str, Any] = {"sampler": "ddpm", "steps": 10}

BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug(
            "unclipped",
            "x̂₀ is not clipped",
            "Near t = T the network's error is divided by √ᾱ, which is almost 0, so x̂₀ leaves "
            "[−1, 1] by far. Clipped, it stays a picture; not clipped, the error goes on to x_s.",
            "diffusion/denoiser.py",
            'return split(prediction.x0.clamp(-1, 1), x_t, alpha_bar, "x0")',
            "return prediction",
            _unclipped,
            LINEAR,
            {"sampler": "ddpm", "steps": 25, "start": None},
        ),
        Bug(
            "last-noise",
            "The last step adds noise",
            "The last step goes to t = 0, where nothing may be added any more. With noise there, "
            "each picture is right below a layer of grain.",
            "diffusion/samplers/ddpm.py",
            "if m.s == 0:",
            "if False:",
            _by(NoiseAtEnd),
            changes=DDPM,
        ),
        Bug(
            "no-root",
            "√ is left out of ᾱ",
            "ᾱ is a share of variance, so the picture has the factor √ᾱ. Without the root, x_t "
            "has less of both than the network has learned to expect at t.",
            "diffusion/samplers/ddim.py",
            "signal, rest = math.sqrt(ab_s), math.sqrt(max(1 - ab_s - sigma**2, 0.0))",
            "signal, rest = ab_s, 1 - ab_s",
            _by(NoRoot),
            changes={"sampler": "ddim", "steps": 10, "eta": 0.0},
        ),
        Bug(
            "short",
            "T = 200 with the β of T = 1000",
            "With so few steps ᾱ_T is 0.13: a third of the picture's strength is left at the end. "
            "Sampling starts from pure noise all the same, which the network never saw there. "
            "(The shipped model has a cosine schedule; its run starts where ᾱ is 0.13.)",
            "diffusion/schedule.py",
            "def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02)",
            "def linear(cls, T: int = 200, beta_start: float = 1e-4, beta_end: float = 0.02)",
            _short,
            changes={"sampler": "ddim", "steps": 10, "eta": 0.0},
        ),
        Bug(
            "steep",
            "β rises to 0.2",
            "ᾱ is below 0.001 already at t = 260, so three steps in four change noise into noise. "
            "What draws the picture are the few that are left. (The shipped model's steps go "
            "where ᾱ is the same.)",
            "diffusion/schedule.py",
            "def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02)",
            "def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.2)",
            _steep,
            changes={"sampler": "ddim", "steps": 10, "eta": 0.0},
        ),
        Bug(
            "ddim-sigma",
            "DDIM adds noise, and keeps all of ε̂",
            "What is added as fresh noise has to be taken from ε̂, or x_s has more noise than s "
            "allows. The network takes what is too much for parts of the picture.",
            "diffusion/samplers/ddim.py",
            "signal, rest = math.sqrt(ab_s), math.sqrt(max(1 - ab_s - sigma**2, 0.0))",
            "signal, rest = math.sqrt(ab_s), math.sqrt(1 - ab_s)",
            _by(FullEps),
            changes={"sampler": "ddim", "steps": 10, "eta": 1.0},
        ),
        Bug(
            "other-noise",
            "A model of Laplace noise gets Gaussian noise",
            "The network has learned to tell pictures from noise with many small and a few large "
            "values. Gaussian noise has the same variance and another shape.",
            "inference/generate.py",
            "noise = Noise(diffusion.noise, seeds)",
            'noise = Noise("gaussian", seeds)',
            _with(noise="gaussian"),
            "mnist-laplace",
            LAPLACE,
        ),
        Bug(
            "base-model",
            "After fine-tuning, the base model is sampled",
            "Fine-tuning changed a copy of the network, and the old one is sampled. The pictures "
            "look good, so nobody notices: they only show every class.",
            "cli/sampling.py",
            "checkpoint = load_checkpoint(o.model, pick(o.device))",
            'checkpoint = load_checkpoint("cifar10", pick(o.device))',
            _base,
            "cifar10-ship",
            {"steps": 10},
        ),
        Bug(
            "no-ema",
            "The weights are not averaged (EMA off)",
            "Each step of the training pushes the weights to and fro, as far as the learning rate "
            "goes. Their moving average is quieter, and draws better pictures. (Recorded: both "
            "kinds of weights are of one training, and are shipped.)",
            "training/trainer.py",
            "return Checkpoint(self.ema, self.diffusion, info)",
            "return Checkpoint(self.model, self.diffusion, info)",
            _raw,
            LINEAR,
            {"sampler": "ddim", "steps": 20, "eta": 0.0},
        ),
        Bug(
            "zero-one",
            "Pictures are taken for [0, 1]",
            "The network was trained on pictures from −1 to 1, and here x̂₀ is clipped to [0, 1]. "
            "Black turns into grey, and what the network sees next has no black in it.",
            "diffusion/denoiser.py",
            'return split(prediction.x0.clamp(-1, 1), x_t, alpha_bar, "x0")',
            'return split(prediction.x0.clamp(0, 1), x_t, alpha_bar, "x0")',
            _by(HalfRange),
            changes={"sampler": "ddim", "steps": 10, "eta": 0.0},
        ),
        Bug(
            "no-noise",
            "DDPM adds no noise",
            "Each step goes to the mean of where x_s may be, and the mean of many pictures is a "
            "smooth one. The noise is what makes x_s as rough as the network expects.",
            "diffusion/samplers/ddpm.py",
            'return Moved(mean + sigma * z, (*line, Term("z", sigma, z)))',
            "return Moved(mean, line)",
            _by(lambda: Terms("z", 0)),
            changes=DDPM,
        ),
        Bug(
            "same-noise",
            "Each step adds the same noise",
            "The seed is set anew in each step, so z is the same every time and adds up. What "
            "should average out becomes a pattern that the network takes for a picture.",
            "diffusion/samplers/ddpm.py",
            "sigma, z = math.sqrt(var), noise.like(m.x)",
            "sigma, z = math.sqrt(var), Noise(kind, seeds).like(m.x)",
            _by(SameNoise),
            changes=DDPM,
        ),
        Bug(
            "eps-for-v",
            "v̂ is taken for ε̂",
            "The network says v, a mix of noise and picture, and the sampler takes it for the "
            "noise alone. At high noise v is almost minus the picture, so all goes wrong at once.",
            "diffusion/denoiser.py",
            "prediction = split(raw, x_t, alpha_bar, self.config.predict)",
            'prediction = split(raw, x_t, alpha_bar, "eps")',
            _with(predict="eps"),
            changes={"sampler": "ddim", "steps": 10, "eta": 0.0},
        ),
    )
}


def recorded(name: str) -> dict[str, Any]:
    """The results of `benchmarks.bugs` for a bug. Empty if there are none."""
    if not RECORD.is_file():
        return {}
    kept = json.loads(RECORD.read_text(encoding="utf-8"))
    found = kept["bugs"].get(name)
    return {"command": kept["command"], **found} if found else {}
