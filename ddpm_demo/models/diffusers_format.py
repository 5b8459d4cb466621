"""Reads and writes models in diffusers' format.

A model is a pipeline's folder with `unet/` and `scheduler/`, or one flat folder, as the first
published models were. The scheduler's settings for sampling go to `Checkpoint.info["sample"]`,
under the names of `SampleConfig`. `diffusers_config` translates the configurations, and `hub`
downloads the folders.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ddpm_demo.config import (
    DiffusionConfig,
    ModelConfig,
    SampleConfig,
    SettingError,
    from_dict,
    require,
)
from ddpm_demo.machine.files import require_writable
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, build
from ddpm_demo.models.diffusers_config import (
    INDEX,
    PIPELINES,
    SCHEDULER,
    SCHEDULER_FLAT,
    THEIRS,
    UNET,
    UNET_FLAT,
    model_config,
    one_of,
    process_config,
    published,
)

# Before diffusers 0.12, the weights of attention had these names.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_NAME = re.compile(rf"(?<=\.)({'|'.join(OLD_NAMES)})(?=\.(?:weight|bias)$)")


def is_diffusers(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (INDEX, UNET, UNET_FLAT))


def _json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: the file holds something else.
    """
    try:
        value = json.loads((folder / name).read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{Path(name).name} is not a JSON object.")
    return value


def _found(folder: Path) -> list[tuple[str, str | None]]:
    """The configurations that a model needs, each with the name of its file here, or None."""
    pairs = ((UNET, UNET_FLAT), (SCHEDULER, SCHEDULER_FLAT))
    return [(names[0], next((n for n in names if (folder / n).is_file()), None)) for names in pairs]


def missing(folder: Path) -> list[str]:
    """The files that a published model's folder lacks. "the weights" stands for all their files."""
    lacks = [wanted for wanted, found in _found(folder) if found is None]
    return lacks if local_weights(folder) else [*lacks, "the weights"]


def weight_files(names: Collection[str]) -> list[str]:
    """Find the weights among file names: one file, or all shards. Prefer safetensors to bin."""
    for suffix in ("safetensors", "bin"):
        if (whole := f"diffusion_pytorch_model.{suffix}") in names:
            return [whole]
        shard = re.compile(rf"diffusion_pytorch_model-\d+-of-(\d+)\.{suffix}")
        shards = {n: int(m[1]) for n in names if (m := shard.fullmatch(n))}
        if shards and set(shards.values()) == {len(shards)}:
            return sorted(shards)
    return []


def local_weights(folder: Path) -> list[Path]:
    """The files with a folder's weights. The list is empty unless all of them are there."""
    at = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    return [at / n for n in weight_files([n for n in os.listdir(at) if (at / n).is_file()])]


def _read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one file. From a pickle, torch reads tensors only.

    Raises:
        CheckpointError: the file is not whole, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is broken or holds more than weights; it is refused, and nothing of it "
            "was run."
        ) from None
    except Exception as error:  # a broken pickle or archive raises whatever it likes
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is not a whole file of weights ({reason}).") from None
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if not isinstance(state, dict) or not all(
        isinstance(k, str)
        and isinstance(v, Tensor)
        and (v.device.type, v.layout) == ("cpu", torch.strided)
        and v.dtype in kinds
        for k, v in state.items()
    ):
        raise CheckpointError(f"{path.name} is not a table of names and floating-point tensors.")
    return state


def read_configs(folder: Path, name: str) -> tuple[ModelConfig, DiffusionConfig, dict[str, Any]]:
    """Read the network, the process and the sampling settings of a published folder.

    Raises:
        CheckpointError: our program can't run them; the message names the key and its value.
    """
    (unet, at), (scheduler, where) = _found(folder)
    try:
        if (folder / INDEX).is_file():
            one_of(_json(folder, INDEX), "_class_name", None, PIPELINES)
        if at is None or where is None:
            raise CheckpointError(f"{scheduler if at else unet} is missing.")
        return model_config(_json(folder, at)), *process_config(_json(folder, where))
    except SettingError as error:
        key = THEIRS.get(error.name, error.name)
        said = SettingError(key, error.value, error.allowed, error.why)
        raise CheckpointError(f"{name} can't be used: {said}"[:400]) from None
    except CheckpointError as error:
        raise CheckpointError(f"{name} can't be used: {error}") from None


def load_diffusers(folder: Path, name: str = "", device: str | torch.device = "cpu") -> Checkpoint:
    """Rebuild a published network, in eval mode, from its folder.

    Args:
        name: the model's name; by default that of the folder.

    Raises:
        CheckpointError: our program can't run the model, files are missing, or parameters are
            missing, unknown, misshapen or not finite.
    """
    name = name or folder.name
    config, process, sample = read_configs(folder, name)
    files = local_weights(folder)
    if not files:
        raise CheckpointError(f"{name} has no whole diffusion_pytorch_model.safetensors or .bin.")
    state: dict[str, Tensor] = {}
    for file in files:
        for key, value in _read(file).items():
            state[OLD_NAME.sub(lambda m: OLD_NAMES[m[1]], key)] = value
    return Checkpoint(build(name, config, state, device), process, {"sample": sample}, name)


def export_diffusers(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a new folder that `diffusers.DDPMPipeline.from_pretrained` can load.

    diffusers' pipelines have no labels, so a model with classes is written for its null class.

    Raises:
        ValueError: diffusers can't run the model, or the folder exists already.
        OSError: the folder can't be written.
    """
    model = checkpoint.model.config
    sample = from_dict(SampleConfig, checkpoint.info.get("sample") or {})
    files = published(model, checkpoint.diffusion, sample)
    require(not folder.exists(), "folder", str(folder), "one that isn't there yet")
    require_writable(folder)
    state = {k: v.detach().cpu().contiguous() for k, v in checkpoint.model.state_dict().items()}
    if model.num_classes:
        null = state.pop("class_embedding.weight")[-1]
        bias = "time_embedding.linear_2.bias"
        state[bias] = state[bias] + null
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary, "new")
        for name, about in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        weights = save(state, {"format": "pt"})
        (new / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
        new.rename(folder)
    return folder
