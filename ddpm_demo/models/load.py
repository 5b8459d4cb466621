"""Loads a model from anywhere: a shipped model's name, a file, a folder, or a repo of the Hub."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from ddpm_demo.machine.files import expand
from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, model_files, read_checkpoint
from ddpm_demo.models.diffusers_format import is_diffusers, load_diffusers, local_weights
from ddpm_demo.models.exact import PREFIX, exact
from ddpm_demo.models.zoo import available, how_to_get_models, models_folder


def load_checkpoint(source: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a model and rebuild its network, in eval mode.

    Args:
        source: the first of these that fits: the name of a shipped model; a file or folder of this
            program; a folder in diffusers' format; exact:mnist:N (see `exact`); or `owner/name` of
            a repo of the Hub, which is downloaded unless it is on this disk.

    Raises:
        CheckpointError: the model isn't there or can't be used; the message says why.
    """
    name = str(source)
    path = expand(source)
    if Path(name).name == name and os.path.isdir(shipped := models_folder() / name):
        path = shipped
    elif os.path.exists(path):
        if is_diffusers(path):
            return load_diffusers(path, device=device)
    elif name.startswith(PREFIX):
        made = exact(name)
        made.model.to(device)
        return made
    elif hub.is_repo(name):
        return _from_hub(name, device)
    if not os.path.exists(path) or not model_files(path):
        names = available()
        shipped_ones = f", or a shipped model: {', '.join(names)}." if names else "."
        raise CheckpointError(
            f"There is no model {name!r}. It must be a .safetensors file, a folder with one"
            f"{shipped_ones}{'' if names else ' ' + how_to_get_models()}"
        )
    return read_checkpoint(path, name, device)


def _from_hub(repo_id: str, device: str | torch.device) -> Checkpoint:
    folder = hub.download(repo_id)
    if not local_weights(folder):
        return dataclasses.replace(read_checkpoint(folder, repo_id, device), name=repo_id)
    checkpoint = load_diffusers(folder, repo_id, device)
    if repo_id in hub.DATASETS:
        checkpoint.info["dataset"] = hub.DATASETS[repo_id]
    return checkpoint
