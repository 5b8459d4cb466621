"""Ways to change a run. Each is an `Intervention`, and a run takes any number of them.

The table says which method or function does what.

| to do this | use |
| --- | --- |
| draw on x_t, erase to noise, flip, shift; inpaint; begin with a picture | `edit` |
| do any of these only from one t to another | `Between` |
| change the guidance scale with t, or guide on an interval only | `guidance` |
| see and change both predictions behind guidance, and w | `guided` |
| measure the network's error, scale or replace eps_hat, edit x0_hat | `predicted` |
| use a wrong sigma; negate, replace or drop z; add noise at the last step | `line` |
| tell the sampler a wrong s | `aim` |
| go up to t again, as RePaint's resampling does | `again` |
| stop at a breakpoint, judge x0_hat, limit the time | `on_step` |
| branch; pause and go on; change the class, sampler or clipping midway | `Step.state` |
| leave x0_hat unclipped from the start | `Denoiser(clip=False)` |
| go from a picture up to its noise | `samplers.ddim.invert` |

Heun calls the network twice a step. The second call passes through `guidance`, `guided` and
`predicted` as well. A run without interventions is bit-identical to one without this machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddpm_demo.config import number
from ddpm_demo.diffusion.denoiser import Prediction, split
from ddpm_demo.diffusion.schedule import Noise, Schedule
from ddpm_demo.diffusion.walk import At, Intervention, Step, Term

__all__ = [
    "Between",
    "Draw",
    "Edit",
    "FromPicture",
    "Guidance",
    "GuidanceInterval",
    "Inpaint",
    "Intervention",
    "NoiseAtEnd",
    "ScaleEps",
    "Terms",
]


@dataclass
class Edit(Intervention):
    """Change x_t inside a mask, at one step.

    Args:
        t: the step.
        mask: 1 where x_t changes, 0 elsewhere; broadcasts against (B, C, H, W).
        operation: a function from x_t to the new x_t, such as `lambda x: x.flip(-1)`.
    """

    t: int
    mask: Tensor
    operation: Callable[[Tensor], Tensor]

    def edit(self, at: At) -> Tensor:
        if at.t != self.t:
            return at.x
        return torch.where(self.mask.to(at.x.device) > 0, self.operation(at.x), at.x)


def _noise(at: At) -> Tensor:
    """Noise with the variance 1 - alpha_bar_t. Its own stream leaves the run's noise unchanged."""
    sigma = float(1 - at.schedule.alpha_bar[at.t]) ** 0.5
    return sigma * Noise("gaussian", range(at.t, at.t + len(at.x))).draw(at.x.shape).to(at.x)


def _painted(level: float) -> Callable[[At], Tensor]:
    """A function that draws from q(x_t | x_0), where all pixels of x_0 have this level."""
    return lambda at: float(at.schedule.alpha_bar[at.t]) ** 0.5 * level + _noise(at)


DRAWING: dict[str, Callable[[At], Tensor]] = {
    "erase": _noise,
    "bright": _painted(1.0),
    "dark": _painted(-1.0),
    "flip": lambda at: at.x.flip(-1),
    "shift": lambda at: at.x.roll(max(1, at.x.shape[-1] // 8), -1),
}
"""What can be drawn on x_t: erase to noise, paint, mirror, or shift right by an eighth.

Each function returns a whole picture. `Draw` keeps only the part inside its mask."""


def _fitted(mask: Tensor, x: Tensor) -> Tensor:
    """Resize a mask (h, w) to the pictures, by its nearest cells; bool (1, 1, H, W)."""
    return interpolate(mask[None, None].float(), x.shape[-2:]) > 0


@dataclass
class Draw(Intervention):
    """Draw on x_t at one step.

    Args:
        operation: a key of `DRAWING`.
        t: the step.
        mask: bool (h, w), resized to the pictures; None draws everywhere.
        picture: draw on this picture of the batch only; None draws on all of them.
    """

    operation: str
    t: int
    mask: Tensor | None = None
    picture: int | None = None

    def edit(self, at: At) -> Tensor:
        if at.t != self.t:
            return at.x
        inside = torch.ones(at.x.shape[-2:], dtype=torch.bool) if self.mask is None else self.mask
        inside = _fitted(inside, at.x).expand(len(at.x), -1, -1, -1).clone()
        if self.picture is not None:
            inside &= (torch.arange(len(at.x)) == self.picture).reshape(-1, 1, 1, 1)
        return torch.where(inside.to(at.x.device), DRAWING[self.operation](at), at.x)


@dataclass
class Guidance(Intervention):
    """Replace the run's guidance scale by w."""

    w: float

    def guidance(self, t: int, w: float) -> float:
        return self.w


@dataclass
class Between(Intervention):
    """Apply another intervention only at the steps with low <= t <= high."""

    inner: Intervention
    high: int
    low: int = 1

    def _on(self, t: int) -> bool:
        return self.low <= t <= self.high

    def edit(self, at: At) -> Tensor:
        return self.inner.edit(at) if self._on(at.t) else at.x

    def guidance(self, t: int, w: float) -> float:
        return self.inner.guidance(t, w) if self._on(t) else w

    def guided(self, t: int, uncond: Tensor, cond: Tensor, raw: Tensor) -> Tensor:
        return self.inner.guided(t, uncond, cond, raw) if self._on(t) else raw

    def predicted(self, schedule: Schedule, x: Tensor, t: int, seen: Prediction) -> Prediction:
        return self.inner.predicted(schedule, x, t, seen) if self._on(t) else seen

    def aim(self, t: int, s: int) -> int:
        return self.inner.aim(t, s) if self._on(t) else s

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        return self.inner.line(at, line) if self._on(at.t) else line

    def again(self, at: At) -> Tensor | None:
        return self.inner.again(at) if self._on(at.t) else None

    def on_step(self, step: Step) -> None:
        if self._on(step.t):
            self.inner.on_step(step)


@dataclass
class GuidanceInterval(Intervention):
    """Guide only where low <= t <= high (Kynkäänniemi et al. 2024). Elsewhere w is 1."""

    low: int
    high: int

    def guidance(self, t: int, w: float) -> float:
        return w if self.low <= t <= self.high else 1.0


@dataclass
class ScaleEps(Intervention):
    """Multiply eps_hat by a factor, and compute x0_hat from it. x0_hat is not clipped again."""

    factor: float

    def predicted(self, schedule: Schedule, x: Tensor, t: int, seen: Prediction) -> Prediction:
        alpha_bar = schedule.at(schedule.alpha_bar, t, x)
        return split(self.factor * seen.eps, x, alpha_bar, "eps")


@dataclass
class Terms(Intervention):
    """Multiply the coefficient of each term of this name: 0 drops the term, -1 negates it.

    With `Terms("z", 0)` a sampler adds no noise; with `Terms("z", 2)` its sigma is wrong.
    """

    name: str
    factor: float

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        if all(term.name != self.name for term in line):
            return line
        return tuple(
            t._replace(coefficient=self.factor * t.coefficient) if t.name == self.name else t
            for t in line
        )


@dataclass
class NoiseAtEnd(Intervention):
    """A well-known bug: the last step also adds noise, with sigma = sqrt(1 - alpha_bar_t)."""

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        if at.s:
            return line
        sigma = float(1 - at.schedule.alpha_bar[at.t]) ** 0.5
        return (*line, Term("z", sigma, at.noise.like(at.x)))


@dataclass
class FromPicture(Intervention):
    """Begin with a noised picture (Meng et al. 2022, SDEdit, algorithm 1).

    Each picture of the batch has its own starting t. Down to that t, it is the known picture,
    noised by q(x_t | x_0) with one eps. Below that t, the sampler goes on alone. A picture that
    starts at T keeps nothing of the known picture.

    Args:
        known: (1, C, H, W) in [-1, 1].
        ts: the starting t of each picture of the batch.
        seeds: the seed of each picture's eps.
    """

    known: Tensor
    ts: Sequence[int]
    seeds: Sequence[int]
    _eps: Tensor | None = field(default=None, init=False)

    def edit(self, at: At) -> Tensor:
        held = [at.t >= t for t in self.ts]
        if not any(held):
            return at.x
        if self._eps is None:
            self._eps = Noise(at.noise.kind, self.seeds).draw(at.x.shape).to(at.x)
        x = at.schedule.q_sample(self.known.to(at.x).expand_as(at.x), at.t, self._eps)
        return torch.where(torch.tensor(held, device=x.device).reshape(-1, 1, 1, 1), x, at.x)


@dataclass
class Inpaint(Intervention):
    """Keep a known part of the picture (Lugmayr et al. 2022, RePaint, algorithm 1).

    At each t, the known part is drawn from q(x_t | x_0), and the sampler makes the rest. `resample`
    says how often each step is repeated: x_s goes up to t again by q(x_t | x_s), so that the two
    parts come to agree. At the end, the known part is exactly the known picture.

    Args:
        known: (B, C, H, W) or (1, C, H, W) in [-1, 1].
        mask: 1 where the picture is known, 0 where the sampler makes it. It broadcasts against
            (B, C, H, W), or it is (h, w) and is resized.
        resample: how often each step is walked, 1 to 100. All steps but the last are repeated.
    """

    known: Tensor
    mask: Tensor
    resample: int = 1
    _walked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        number("resample", self.resample, 1, 100, whole=True)

    def _inside(self, x: Tensor) -> Tensor:
        mask = _fitted(self.mask, x) if self.mask.ndim == 2 else self.mask > 0
        return mask.to(x.device)

    def edit(self, at: At) -> Tensor:
        known = self.known.to(at.x).expand_as(at.x)
        x = at.schedule.q_sample(known, at.t, at.noise.like(at.x))
        return torch.where(self._inside(x), x, at.x)

    def line(self, at: At, line: tuple[Term, ...]) -> tuple[Term, ...]:
        if at.s:
            return line
        inside = self._inside(at.x).to(at.x)
        rest = tuple(t._replace(tensor=(1 - inside) * t.tensor) for t in line)
        return (*rest, Term("known", 1.0, inside * self.known.to(at.x).expand_as(at.x)))

    def again(self, at: At) -> Tensor | None:
        self._walked += 1
        if at.s == 0 or self._walked % self.resample == 0:
            self._walked = 0
            return None
        kept = float(at.schedule.alpha_bar[at.t] / at.schedule.alpha_bar[at.s])
        return kept**0.5 * at.x + (1 - kept) ** 0.5 * at.noise.like(at.x)
