"""The program from Python: `import ddpm_demo as dd`.

Thin: each function puts together what the rooms below do, with the models' own defaults. Bad values
raise `ValueError` with one sentence.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_demo import data as d
from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, TrainConfig
from ddpm_demo.config.setting import one_of
from ddpm_demo.devices import pick
from ddpm_demo.diffusion.forward import jump
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.diffusion.walk import Step
from ddpm_demo.evaluation import frechet, references
from ddpm_demo.evaluation.classifier import judge_of
from ddpm_demo.evaluation.features import summarise
from ddpm_demo.evaluation.samples import pages
from ddpm_demo.files import expand, write_atomically
from ddpm_demo.inference import given
from ddpm_demo.inference.branches import play
from ddpm_demo.inference.changes import write_mask
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.labels import parse_classes
from ddpm_demo.inference.spec import RunSpec, defaults
from ddpm_demo.media import convert, encode
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.finetune import finetune as _finetune
from ddpm_demo.training.finetune import settings as _finetune_settings
from ddpm_demo.training.train import Progress
from ddpm_demo.training.train import train as _train

BATCH = 64  # pictures drawn at once, where nobody watches
Labels = str | Sequence[int] | None


@dataclass(frozen=True)
class Pictures:
    """Pictures that were made; a notebook shows them as a grid.

    Attributes:
        x: (N, C, H, W) float32, about -1 to 1.
        about: what a file of them says of itself: enough to make them again.
    """

    x: Tensor
    about: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def pixels(self) -> np.ndarray:
        """(N, H, W, C) uint8."""
        return convert.to_uint8(self.x)

    def save(self, path: str | Path, scale: int = 4) -> None:
        """Write a grid of them: a PNG whose metadata says how they were made."""
        encode.write(expand(path), [convert.grid(self.pixels, scale=scale)], metadata=self.about)

    def _repr_png_(self) -> bytes:
        return encode.encode([convert.grid(self.pixels, scale=4)], "png", metadata=self.about)


@dataclass(frozen=True)
class Film:
    """A film of a run; a notebook plays it."""

    gif: bytes

    def save(self, path: str | Path) -> None:
        write_atomically(expand(path), self.gif)

    def _repr_html_(self) -> str:
        return f'<img src="data:image/gif;base64,{base64.b64encode(self.gif).decode()}">'


class Model:
    """A model that is loaded: what `load` returns.

    Attributes:
        checkpoint: the network with what it was trained for.
        defaults: how it is best sampled.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.defaults = defaults(checkpoint)

    def __repr__(self) -> str:
        return f"<Model {self.name}>"

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def classes(self) -> list[str]:
        """Names of its classes; none if it was trained without."""
        return self.checkpoint.classes

    @property
    def schedule(self) -> Schedule:
        return Schedule.from_config(self.checkpoint.diffusion)

    def config(self, labels: Labels = None, **settings: Any) -> SampleConfig:
        """The model's own settings, changed.

        Args:
            labels: "each" (all classes in turn, by seed), "any" (no class), names separated by
                commas, or their numbers; None: as the model says.
            settings: of `SampleConfig`: n, seed, sampler, steps, guidance, …

        Raises:
            ValueError: a value that is not allowed, or a class that the model doesn't know.
        """
        for name in settings:
            one_of("setting", name, tuple(SampleConfig.__dataclass_fields__))
        if isinstance(labels, str):
            settings["labels"] = parse_classes(labels, self.classes)
        elif labels is not None:
            settings["labels"] = tuple(labels)
        return self.defaults.but(**settings)

    def steps(
        self, n: int = 16, labels: Labels = None, *, bf16: bool = False, **settings: Any
    ) -> Iterator[Step]:
        """Sample n pictures, and yield every step; stop whenever you like.

        Args and errors as in `config`; they are checked before the first step.

        >>> model = load("mnist")
        >>> [step.t for step in model.steps(n=1, steps=3, start=None)]
        [1000, 667, 333, 0]
        """
        return generate(self.checkpoint, self.config(labels, n=n, **settings), bf16=bf16)

    def sample(
        self,
        n: int = 16,
        labels: Labels = None,
        *,
        on_step: Callable[[Step], object] | None = None,
        bf16: bool = False,
        **settings: Any,
    ) -> Pictures:
        """Sample n pictures; that of seed s is the same in whichever batch it is drawn.

        Args:
            on_step: called with every step; if it returns True, the run ends there, and its x_t is
                what is returned. All n pictures are then one batch.
            labels, settings: as in `config`.

        >>> load("mnist").sample(n=2, steps=2, seed=7).pixels.shape
        (2, 28, 28, 1)
        """
        config, parts = self.config(labels, n=n, **settings), []
        for page in pages(config, n if on_step else BATCH):
            for step in generate(self.checkpoint, page, bf16=bf16):
                if on_step and on_step(step) is True:
                    break
            parts.append(step.x_t)
        about = RunSpec(self.name, config).to_metadata(self.classes)
        return Pictures(torch.cat(parts).cpu(), about)

    def denoise(
        self,
        picture: str | Path | Image.Image | Tensor,
        t: int | Sequence[int],
        labels: Labels = None,
        *,
        bf16: bool = False,
        **settings: Any,
    ) -> Pictures:
        """Noise a picture up to t, and take the noise away (SDEdit, Meng et al. 2022).

        Args:
            picture: a file, an opened picture, or (1, C, H, W) in [-1, 1] of the model's size.
            t: 1 to T; of several, each begins a picture of its own, the highest first.
            labels: of one class; else it is "any".
            settings: as in `config`.

        >>> load("mnist").denoise(torch.zeros(1, 1, 28, 28), [800, 200]).x.shape
        torch.Size([2, 1, 28, 28])
        """
        if isinstance(picture, Tensor):
            known = picture
        else:
            opened = picture if isinstance(picture, Image.Image) else open_image(expand(picture))
            known = given.fitted(opened, self.checkpoint.model.config)
        ts = [t] if isinstance(t, int) else list(t)
        config, change = given.begun(self.checkpoint, self.config(labels, **settings), ts)
        return self._played(config, change, known, bf16)

    def inpaint(
        self,
        picture: Pictures | Tensor,
        mask: Tensor,
        times: int = 5,
        labels: Labels = None,
        *,
        bf16: bool = False,
        **settings: Any,
    ) -> Pictures:
        """Make a part of a picture anew, and keep the rest (Lugmayr et al. 2022, RePaint).

        Args:
            picture: (1, C, H, W) in [-1, 1], of the model's size.
            mask: bool (side, side), of 4 to 32 cells, true where to make it anew.
            times: that each step is walked.
            labels, settings: as in `config`; n for several ways.

        >>> mask = torch.ones(4, 4, dtype=torch.bool)
        >>> load("mnist").inpaint(torch.zeros(1, 1, 28, 28), mask, 1, n=2, steps=2).x.shape
        torch.Size([2, 1, 28, 28])
        """
        config = self.config(labels, **settings)
        known = picture.x if isinstance(picture, Pictures) else picture
        change = f"keep={times}:{self.schedule.T}:{write_mask(mask)}:0"
        return self._played(config, change, known, bf16)

    def _played(self, config: SampleConfig, change: str, known: Tensor, bf16: bool) -> Pictures:
        """The end of a run that is given a picture."""
        (known,) = given.read([given.write(known)], self.checkpoint.model.config)
        for step in play(self.checkpoint, config, [change], given=[known], bf16=bf16):
            last = step
        spec = RunSpec(self.name, config, (change,), (given.write(known),))
        return Pictures(last.x_t.cpu(), spec.to_metadata(self.classes))


def load(source: str | Path, device: str = "auto") -> Model:
    """A model by its name, file, folder or repo of the Hub.

    Raises:
        ValueError: it isn't there or can't be used.

    >>> load("mnist")
    <Model mnist>
    """
    return Model(load_checkpoint(source, pick(device)))


def noise(
    picture: str | Path | Image.Image | Tensor,
    t: int,
    schedule: str | Schedule = "linear",
    *,
    size: int = 128,
    seed: int = 0,
    kind: str = "gaussian",
) -> Pictures:
    """A picture after t steps of the forward process (Ho et al. 2020, eq. 4).

    Args:
        picture: a file, an opened picture, or (B, C, H, W) in [-1, 1].
        t: 0 to T.
        schedule: "linear" or "cosine", each with T = 1000, or one of your own.
        size: files and opened pictures are cut square and resized to so many pixels.
        seed: of the noise; picture k of several has the seed + k.
        kind: of noise, "gaussian" or "laplace".

    >>> noise(torch.zeros(1, 3, 8, 8), 1000, "cosine").x.shape
    torch.Size([1, 3, 8, 8])
    """
    if isinstance(schedule, str):
        schedule = Schedule.from_config(DiffusionConfig(schedule=schedule))
    if isinstance(picture, Tensor):
        x_0 = picture
    else:
        opened = picture if isinstance(picture, Image.Image) else open_image(expand(picture))
        x_0 = convert.to_tensor(np.asarray(convert.square(opened.convert("RGB"), size))[None])
    return Pictures(jump(schedule, x_0, t, Noise(kind, range(seed, seed + len(x_0)))).x_t)


def train(
    dataset: str | d.Images,
    out: str | Path | None = None,
    *,
    model: ModelConfig | Model | None = None,
    process: DiffusionConfig | None = None,
    device: str = "auto",
    resume: bool = False,
    **settings: Any,
) -> Iterator[Progress]:
    """Train a model, and yield after every step.

    Args:
        dataset: mnist, fashion_mnist, cifar10, folder:PATH, or pictures in memory.
        out: folder for weights, state and log; None writes nothing.
        model: the network, or a model to start from; None: the lean network for the data.
        process: schedule, noise and target; None: the cosine schedule.
        resume: go on from the state in `out`.
        settings: of `TrainConfig`; one of images, epochs and minutes ends the run.

    Raises:
        ValueError: a value that is not allowed, or data that can't be had.
    """
    name = dataset if isinstance(dataset, str) else "memory"
    config = TrainConfig(dataset=name, **settings)
    config.require_length()
    shape = model.checkpoint.model.config if isinstance(model, Model) else model
    look: dict[str, Any] = {"size": shape.size, "channels": shape.channels} if shape else {}
    pictures = d.load(dataset, **look) if isinstance(dataset, str) else dataset
    if config.only:
        pictures = pictures.only(config.only)
    start: ModelConfig | Checkpoint
    if isinstance(model, Model):
        start, process = model.checkpoint, process or model.checkpoint.diffusion
    else:
        size, channels = pictures.pixels.shape[-1], pictures.pixels.shape[1]
        lean = ModelConfig(size=size, channels=channels, attention=(-(-size // 4),))
        start = model or lean
    process = process or DiffusionConfig(schedule="cosine")
    where = expand(out) if out is not None else None
    options: dict[str, Any] = {"resume": resume, "device": pick(device)}
    return _train(start, process, config, pictures, where, **options)


def finetune(
    base: str | Model,
    only: str | None = None,
    out: str | Path | None = None,
    *,
    dataset: str | d.Images | None = None,
    **settings: Any,
) -> Iterator[Progress]:
    """Move a copy of a model to one class, or to other pictures; yield after every step.

    Args:
        only: the class; None: all of the data.
        dataset: as in `train`; None: the data that the base was trained on.
        settings: of `TrainConfig`; one of images, epochs and minutes ends the run.

    Raises:
        ValueError: as in `train`, or pictures that don't fit the model.
    """
    checkpoint = (load(base) if isinstance(base, str) else base).checkpoint
    model = checkpoint.model.config
    name = dataset if isinstance(dataset, str) else checkpoint.info.get("dataset", "")
    pictures = dataset if isinstance(dataset, d.Images) else None
    if pictures is None:
        pictures = d.load(name, size=model.size, channels=model.channels)
    if only:
        pictures = pictures.only(only)
    config = _finetune_settings(checkpoint, pictures, dataset=name, only=only, **settings)
    device = next(checkpoint.model.parameters()).device
    where = expand(out) if out is not None else None
    return _finetune(checkpoint, pictures, config, where, device=device)


def evaluate(model: Model, n: int = 500, *, split: str = "test", **settings: Any) -> dict[str, Any]:
    """How far n samples are from the pictures that the model was trained on.

    The judge is this repository's own classifier of the data, so it is not FID, and it falls with
    n: compare the same n only.

    Args:
        settings: as in `Model.config`, labels among them.

    Returns:
        `fd`, the Fréchet distance; `floor`, what n draws from the data's own Gaussian have; `sure`
        and `sure_data`, shares of which the judge is sure; `classes` and `classes_data`.

    Raises:
        ValueError: there is no judge for the model, or n is too small for it.
    """
    judge = judge_of(model.checkpoint)
    frechet.require_enough(n, judge.dim)
    data = references.read(judge, split)
    pixels = torch.from_numpy(model.sample(n, **settings).pixels).permute(0, 3, 1, 2)
    *_, found = summarise(judge, pixels)
    said = frechet.judge(found, data, judge.config.classes)
    return said | {"floor": frechet.floor(data, n)}


def grid(pictures: Pictures | Tensor, columns: int | None = None, scale: int = 4) -> Image.Image:
    """Pictures side by side on one sheet.

    >>> grid(torch.zeros(4, 1, 8, 8), scale=1).size
    (17, 17)
    """
    x = pictures.x if isinstance(pictures, Pictures) else pictures
    return Image.fromarray(convert.grid(convert.to_uint8(x), columns, scale=scale))


def film(steps: Iterable[Step], scale: int = 4, fps: float = 15) -> Film:
    """A film of a run: what `Model.steps` yields, each a frame."""
    frames = [convert.grid(convert.to_uint8(step.x_t), scale=scale) for step in steps]
    return Film(encode.encode(frames, "gif", fps=fps))
