"""Small classifiers of MNIST, Fashion-MNIST and CIFAR-10 that judge samples.

The network is a narrow ResNet-9. It has few features, so a few hundred pictures are enough for the
Fréchet distance between them (see `frechet.py`). `cli.fit_classifier` trains it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_demo import data
from ddpm_demo.config import SettingError, from_dict, number, require, whole_numbers
from ddpm_demo.models.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_parameters,
    load_tensors,
    save_tensors,
)
from ddpm_demo.models.zoo import models_folder

VERSION = 1


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of the network.

    Attributes:
        widths: the channels of the stem, and after each of the three halvings.
        dim: the number of features.
    """

    classes: tuple[str, ...]
    size: int = 28
    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dim: int = 64

    def __post_init__(self) -> None:
        require(len(self.classes) > 1, "classes", self.classes, "2 or more names")
        number("size", self.size, 8, 1024, whole=True)
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        ok = whole_numbers(self.widths, 1, 1024) and len(self.widths) == 4
        require(ok, "widths", self.widths, "four whole numbers from 1 to 1024")
        number("dim", self.dim, 1, 1024, whole=True)


def _conv(c_in: int, c_out: int, kernel: int = 3, *, halve: bool = False) -> nn.Sequential:
    pool = [nn.MaxPool2d(2)] * halve  # before the norm, which then has only a quarter of the work
    convolution = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, *pool, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(c, c), _conv(c, c))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Classifier(nn.Module):
    """The network: from (B, C, H, W) pictures in [-1, 1] to (B, classes) logits.

    Attributes:
        info: dataset, recipe and test results, if they are known.
    """

    def __init__(self, config: ClassifierConfig, info: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.info = config, info or {}
        stem, a, b, c = config.widths
        self.body = nn.Sequential(
            _conv(config.channels, stem),
            _conv(stem, a, halve=True),
            _Residual(a),
            _conv(a, b, halve=True),
            _conv(b, c, halve=True),
            _Residual(c),
            _conv(c, config.dim, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(config.dim, len(config.classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, dim) the input of the last layer."""
        return self.body(x.contiguous(memory_format=torch.channels_last))

    @property
    def name(self) -> str:
        """The data set and a hash of the weights, so that each training has its own name."""
        digest = hashlib.sha256()
        for v in weights(self).values():
            digest.update(v.half().cpu().numpy().tobytes())
        return f"{self.info.get('dataset', 'classifier')}-{digest.hexdigest()[:8]}"

    @property
    def dim(self) -> int:
        return self.config.dim

    @torch.no_grad()
    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) features and (B, classes) logits of (B, C, H, W) uint8 pictures.

        If digits have the black frame of `data.fitted`, it is removed first.

        Raises:
            ValueError: the classifier wasn't trained for pictures of this shape.
        """
        shape = (self.config.channels, self.config.size, self.config.size)
        if frame := data.frame_of(self.config.size, pixels.shape[-1]):
            pixels = pixels[..., frame:-frame, frame:-frame]
        seen = tuple(pixels.shape[1:])
        require(seen == shape, "shape of the pictures", seen, f"{shape}, as for the classifier")
        features = self.features(pixels.to(self.head.weight.device).float() / 127.5 - 1)
        return features, self.head(features)


def weights(model: Classifier) -> dict[str, Tensor]:
    """The parameters and running statistics of a classifier, without PyTorch's batch counters."""
    return {k: v for k, v in model.state_dict().items() if v.is_floating_point()}


def save_classifier(path: Path, model: Classifier) -> None:
    """Write a safetensors file in half precision, with configuration and results as metadata."""
    about = {
        "version": VERSION,
        "classifier": dataclasses.asdict(model.config),
        "info": model.info,
    }
    save_tensors(path, {k: v.half() for k, v in weights(model).items()}, about)


def load_classifier(source: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """Load a shipped classifier by its name, or one from a file, in eval mode.

    Raises:
        CheckpointError: the classifier isn't there or can't be used; the message says why.
    """
    shipped = {p.stem: p for p in (models_folder() / "classifiers").glob("*.safetensors")}
    path = shipped.get(str(source), Path(source))
    if not path.is_file():
        raise CheckpointError(
            f"There is no classifier {str(source)!r}. It must be a .safetensors file, "
            f"or a shipped one: {', '.join(sorted(shipped)) or 'none'}."
        )
    state, about = load_tensors(path)
    try:
        if about.get("version") != VERSION:
            raise SettingError("its version", about.get("version"), VERSION)
        config = from_dict(ClassifierConfig, about["classifier"])
        info = dict(about.get("info") or {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = error if isinstance(error, ValueError) else repr(error)
        raise CheckpointError(f"{path.name} is not a classifier of ours: {said}") from None
    model = Classifier(config, info)
    check_parameters(path.name, weights(model), state)
    model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    return model.to(device).eval().requires_grad_(False)


def judge_of(checkpoint: Checkpoint) -> Classifier:
    """The shipped classifier for the data that a model was trained on.

    Raises:
        ValueError: there is none, or the model's pictures don't have the classifier's shape.
    """
    dataset, config = checkpoint.info.get("dataset"), checkpoint.model.config
    why = "the others have no classifier"
    require(dataset in data.DATASETS, "data of the model", dataset, data.named(""), why)
    judge = load_classifier(str(dataset))
    wanted, shape = judge.config, (config.channels, config.size)
    framed = config.channels == wanted.channels and data.frame_of(wanted.size, config.size) > 0
    require(
        framed or shape == (wanted.channels, wanted.size),
        "channels and size of the model",
        shape,
        f"{(wanted.channels, wanted.size)}",
        f"the classifier of {dataset} has these",
    )
    return judge
