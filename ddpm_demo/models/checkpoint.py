"""Reads and writes this program's checkpoints: safetensors with their configuration inside.

A checkpoint is one `.safetensors` file, or a folder with `model.safetensors` or its shards and
index. It holds all that is needed to rebuild the network, and never a pickle. Each file is written
under a temporary name and then renamed, so nothing is lost if the program is killed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig, SettingError, from_dict
from ddpm_demo.machine.files import write_atomically
from ddpm_demo.models.facts import KEY, Facts
from ddpm_demo.nn.prepared import Prepared
from ddpm_demo.nn.unet import UNet

VERSION = 1
MAX_SHARD = 9_500_000  # bytes; a Space refuses files over 10 MB without LFS


class CheckpointError(ValueError):
    """A checkpoint can't be read; the message is one sentence that says why."""


@dataclass
class Checkpoint:
    """A network, and the process that it was trained for.

    `info` holds what the trainer wrote about it: dataset, classes, images seen.
    """

    model: UNet
    diffusion: DiffusionConfig
    info: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def parameters(self) -> int:
        """How many parameters the network has."""
        return count_parameters(self.model)

    @property
    def nbytes(self) -> int:
        """Bytes in memory of the weights, and of what layers have prepared from them."""
        made = sum(m.prepared_bytes for m in self.model.modules() if isinstance(m, Prepared))
        return made + sum(weight.nbytes for weight in self.model.state_dict().values())

    @property
    def classes(self) -> list[str]:
        return self.facts.classes

    @property
    def best(self) -> SampleConfig:
        """The model's own sampling settings, as in `Facts`."""
        return self.facts.best

    @property
    def facts(self) -> Facts:
        """Everything about the checkpoint but its weights."""
        config = self.model.config
        return Facts(self.name, config, self.diffusion, self.info, self.parameters)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def digest(model: nn.Module, about: bytes = b"") -> str:
    """A hash of a network's weights, in sixteen characters. It doesn't depend on the name.

    Args:
        about: more bytes to hash.
    """
    found = hashlib.sha256(about)
    for name, weight in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(weight.float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write one safetensors file, whole or not at all, with `about` as JSON in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomically(path, save(whole, {KEY: json.dumps(about)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of one safetensors file, and this program's JSON from its metadata.

    Raises:
        CheckpointError: there is no such file, or it is not safetensors from this program.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is not a whole safetensors file ({error}).") from None
    if KEY not in metadata:
        raise CheckpointError(f"{path.name} was not made by ddpm_demo: its metadata lacks {KEY!r}.")
    try:
        about = json.loads(metadata[KEY])
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path.name} has garbled metadata ({error}).") from None
    return tensors, about


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The JSON that a checkpoint carries in its metadata."""
    return {
        "version": VERSION,
        "model": dataclasses.asdict(checkpoint.model.config),
        "diffusion": dataclasses.asdict(checkpoint.diffusion),
        "info": checkpoint.info,
    }


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32
) -> Path:
    """Write `folder/model.safetensors`, or shards of at most 9.5 MB and their index.

    Args:
        dtype: the dtype of the stored weights; float16 halves the file.

    Returns:
        The file or the index, whichever `load_checkpoint` reads first.
    """
    about = describe(checkpoint)
    state = {k: v.to(dtype) for k, v in checkpoint.model.state_dict().items()}
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=MAX_SHARD
    )
    old = set(folder.glob("model*.safetensors*"))
    for file, keys in plan.filename_to_tensors.items():
        save_tensors(folder / file, {k: state[k] for k in keys}, about)
    path = folder / next(iter(plan.filename_to_tensors))
    written = {folder / file for file in plan.filename_to_tensors}
    if plan.is_sharded:
        index = {"metadata": {KEY: json.dumps(about)}, "weight_map": plan.tensor_to_filename}
        path = folder / "model.safetensors.index.json"
        write_atomically(path, json.dumps(index, indent=1).encode())
        written.add(path)
    for stale in old - written:
        stale.unlink()
    return path


def save_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write one file with half-precision weights. It may be larger than a shard."""
    state = {k: v.half() for k, v in checkpoint.model.state_dict().items()}
    save_tensors(path, state, describe(checkpoint))


def model_files(source: Path) -> list[Path]:
    """The files that `read_checkpoint` would read weights from; an empty list if there are none.

    Raises:
        CheckpointError: the index of shards is broken.
    """
    for whole in (source, source / "model.safetensors"):
        if whole.is_file():
            return [whole]
    index = source / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        outside = any(Path(n).name != n for n in names)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index.name} is garbled ({error!r}).") from None
    if not names:
        raise CheckpointError(f"{index.name} names no files.")
    if outside:
        raise CheckpointError(f"{index.name} names files outside its folder.")
    return [source / n for n in sorted(names)]


def read_checkpoint(path: Path, name: str = "", device: str | torch.device = "cpu") -> Checkpoint:
    """Rebuild a network, in eval mode, from a file or folder of this program.

    Args:
        name: the name to use in messages; the path by default.

    Raises:
        CheckpointError: the checkpoint can't be used. The message names the missing, unknown or
            misshapen parameters, or the wrong value of the configuration.
    """
    name = name or str(path)
    state: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    for file in model_files(path):
        tensors, said = load_tensors(file)
        if state and said != about:
            raise CheckpointError(
                f"The shards in {name} come from different saves: the last one was cut short."
            )
        state, about = state | tensors, said
    try:
        if about.get("version") != VERSION:
            raise SettingError("its version", about.get("version"), VERSION)
        config = from_dict(ModelConfig, about["model"])
        diffusion = from_dict(DiffusionConfig, about["diffusion"])
        info = dict(about.get("info") or {})
    except ValueError as error:
        raise CheckpointError(f"The configuration in {name} can't be used: {error}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"The configuration in {name} is garbled ({error!r}).") from None
    called = path.stem if path.suffix else path.name
    return Checkpoint(build(name, config, state, device), diffusion, info, called)


def build(
    name: str, config: ModelConfig, state: Mapping[str, Tensor], device: str | torch.device
) -> UNet:
    """Build the network with these weights, in float32, channels_last and eval mode.

    Raises:
        CheckpointError: the weights don't fit; see `check_parameters`.
    """
    with torch.device("meta"):  # takes no memory, in case the weights don't fit
        model = UNet(config)
    check_parameters(name, model.state_dict(), state)
    model = model.to_empty(device="cpu").to(memory_format=torch.channels_last)
    model.load_state_dict(state)
    return model.to(device).eval()


def check_parameters(name: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` unless names and shapes agree and every value is finite."""
    problems = [f"{k} is missing" for k in sorted(wanted.keys() - given.keys())]
    problems += [f"{k} is unknown" for k in sorted(given.keys() - wanted.keys())]
    for k in sorted(wanted.keys() & given.keys()):
        if wanted[k].shape != given[k].shape:
            problems.append(f"{k} is {tuple(given[k].shape)}, not {tuple(wanted[k].shape)}")
        elif not given[k].is_floating_point() or not bool(given[k].isfinite().all()):
            problems.append(f"{k} holds NaN, infinity or whole numbers")
    if problems:
        more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise CheckpointError(f"The weights in {name} don't fit: {'; '.join(problems[:12])}{more}.")
