"""A loaded model: it samples pictures, and can be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddpm_demo.api.pictures import Pictures
from ddpm_demo.config import SampleConfig, one_of
from ddpm_demo.diffusion import Schedule, Step
from ddpm_demo.evaluation import frechet, references
from ddpm_demo.evaluation.classifier import judge_of
from ddpm_demo.evaluation.features import summarise
from ddpm_demo.evaluation.samples import pages
from ddpm_demo.inference import given
from ddpm_demo.inference.generate import generate, play
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.machine.devices import pick
from ddpm_demo.machine.files import expand
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint

BATCH = 64  # how many pictures are drawn at once if nobody watches the steps
Labels = str | Sequence[int] | None
Picture = str | Path | Image.Image | Tensor


class Model:
    """A loaded model. `load` returns it.

    Attributes:
        checkpoint: the network, and the process that it was trained for.
        defaults: the model's own sampling settings.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.defaults = checkpoint.best

    def __repr__(self) -> str:
        return f"<Model {self.name}>"

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def classes(self) -> list[str]:
        """The names of its classes. The list is empty if it was trained without."""
        return self.checkpoint.classes

    @property
    def schedule(self) -> Schedule:
        return Schedule.from_config(self.checkpoint.diffusion)

    def config(self, labels: Labels = None, **settings: Any) -> SampleConfig:
        """The model's own sampling settings, with changes.

        Args:
            labels: "each" (all classes in turn, by seed), "any" (no class), names separated by
                commas, or a list of numbers. None keeps the model's own.
            settings: fields of `SampleConfig`, such as n, seed, sampler, steps and guidance.

        Raises:
            ValueError: a value is not allowed, or the model doesn't know a class.
        """
        for name in settings:
            one_of("setting", name, tuple(SampleConfig.__dataclass_fields__))
        facts = self.checkpoint.facts
        facts.require_guided(settings.get("guidance", 1))
        if isinstance(labels, str):
            settings["labels"] = facts.parse_classes(labels)
        elif labels is not None:
            settings["labels"] = tuple(labels)
        return self.defaults.but(**settings)

    def steps(
        self, n: int = 16, labels: Labels = None, *, bf16: bool = False, **settings: Any
    ) -> Iterator[Step]:
        """Sample n pictures, and yield every step. You can stop at any step.

        Arguments and errors are those of `config`. They are checked before the first step.

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
        """Sample n pictures. The picture with seed s is the same in every batch.

        Args:
            on_step: called with every step. If it returns True, the run ends there, and its x_t is
                returned. With `on_step`, all n pictures are one batch.
            bf16: run the network under bfloat16 autocast.
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
        picture: Picture,
        t: int | Sequence[int],
        labels: Labels = None,
        *,
        bf16: bool = False,
        **settings: Any,
    ) -> Pictures:
        """Noise a picture up to t, and denoise it (SDEdit, Meng et al. 2022).

        Args:
            picture: a file, an opened picture, or (1, C, H, W) in [-1, 1] of the model's size.
            t: 1 to T. With one t, n pictures are made, 1 by default. With several, one picture is
                made for each t, the highest first.
            labels, settings: as in `config`. If there are several classes, none is used.

        >>> load("mnist").denoise(torch.zeros(1, 1, 28, 28), [800, 200]).x.shape
        torch.Size([2, 1, 28, 28])
        """
        ts = [t] if isinstance(t, int) else list(t)
        config, change = given.begun(self.checkpoint, self.config(labels, **settings), ts)
        if len(ts) == 1:
            config = config.but(n=settings.get("n", 1))
        return self._played(config, change, self._known(picture), bf16)

    def inpaint(
        self,
        picture: Picture | Pictures,
        mask: Picture,
        times: int = 5,
        labels: Labels = None,
        *,
        bf16: bool = False,
        **settings: Any,
    ) -> Pictures:
        """Remake a part of a picture, and keep the rest (Lugmayr et al. 2022, RePaint).

        Args:
            picture: as in `denoise`.
            mask: a file or an opened picture that is white where the picture is remade. Or bool
                (side, side) with 4 to 32 cells a side, True where the picture is remade.
            times: how often each step is walked, 1 to 20.
            labels, settings: as in `config`; n makes several versions.

        >>> mask = torch.ones(4, 4, dtype=torch.bool)
        >>> load("mnist").inpaint(torch.zeros(1, 1, 28, 28), mask, 1, n=2, steps=2).x.shape
        torch.Size([2, 1, 28, 28])
        """
        config = self.config(labels, **settings)
        if not isinstance(mask, Tensor):
            mask = given.mask_of(_opened(mask), self.checkpoint.model.config)
        known = picture.x if isinstance(picture, Pictures) else self._known(picture)
        return self._played(config, given.kept(mask, self.schedule.T, times), known, bf16)

    def _known(self, picture: Picture) -> Tensor:
        if isinstance(picture, Tensor):
            return picture
        return given.fitted(_opened(picture), self.checkpoint.model.config)

    def _played(self, config: SampleConfig, change: str, known: Tensor, bf16: bool) -> Pictures:
        """The final pictures of a run that is given a picture."""
        (known,) = given.read([given.write(known)], self.checkpoint.model.config)
        for step in play(self.checkpoint, config, [change], given=[known], bf16=bf16):
            last = step
        spec = RunSpec(self.name, config, (change,), (given.write(known),))
        return Pictures(last.x_t.cpu(), spec.to_metadata(self.classes))


def _opened(picture: str | Path | Image.Image) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else open_image(expand(picture))


def load(source: str | Path, device: str = "auto") -> Model:
    """Load a model by its name, its file, its folder, or its repo on the Hub.

    Raises:
        ValueError: the model isn't there or can't be used.

    >>> load("mnist")
    <Model mnist>
    """
    return Model(load_checkpoint(source, pick(device)))


def evaluate(model: Model, n: int = 500, *, split: str = "test", **settings: Any) -> dict[str, Any]:
    """Measure the Fréchet distance between n samples and the pictures of the model's data set.

    It uses the features of this repository's own classifier for the data, so it is not FID. The
    distance falls with n, so compare results with the same n only.

    Args:
        split: compare with the "test" or the "train" pictures.
        settings: as in `Model.config`, including labels.

    Returns:
        `fd`, the Fréchet distance; `floor`, about what a perfect model would get; `n` and `n_data`,
        the numbers of pictures; `sure` and `sure_data`, the shares of which the classifier is sure;
        `classes` and `classes_data`, the shares of the classes.

    Raises:
        ValueError: there is no classifier for the model's data, or n is too small.
    """
    judge = judge_of(model.checkpoint)
    frechet.require_enough(n, judge.dim)
    data = references.read(judge, split)
    pixels = torch.from_numpy(model.sample(n, **settings).pixels).permute(0, 3, 1, 2)
    *_, found = summarise(judge, pixels)
    said = frechet.judge(found, data, judge.config.classes)
    return said | {"floor": frechet.floor(data, n)}
