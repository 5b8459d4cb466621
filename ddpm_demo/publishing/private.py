"""Removes paths of this machine from a model before it is published. Names stay."""

from __future__ import annotations

import dataclasses

from ddpm_demo.data import shown
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.facts import name_of


def public(checkpoint: Checkpoint) -> Checkpoint:
    """A copy of the model whose `info` has the names of folders and models, but no paths."""
    info = dict(checkpoint.info)
    for key in ("base", "init"):
        if info.get(key):
            info[key] = name_of(str(info[key]))
    if isinstance(teacher := info.get("teacher"), dict) and "name" in teacher:
        info["teacher"] = teacher | {"name": name_of(str(teacher["name"]))}
    if isinstance(info.get("dataset"), str):
        info["dataset"] = shown(info["dataset"])
    train = dict(info.get("train") or {})
    if isinstance(train.get("dataset"), str):
        info["train"] = train | {"dataset": shown(train["dataset"])}
    return dataclasses.replace(checkpoint, info=info)
