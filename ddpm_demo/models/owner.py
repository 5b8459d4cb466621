"""Uses the models of one owner on the Hub as the shipped models: `--models hub:OWNER`."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants

from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import CheckpointError

PREFIX = "hub:"
MOST = 50  # the most models of an owner


@functools.cache
def folder_of(owner: str) -> Path:
    """A folder with the models that an owner pushed with this program, one folder a repo.

    Models that are already on this disk are not downloaded again. If the Hub can't be reached, the
    folder has the models of last time.

    Raises:
        CheckpointError: the name is not valid, the owner has no such models, or the Hub can't be
            reached and no model is on this disk.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", owner, re.ASCII):
        raise CheckpointError(f"{owner!r} is not the name of an owner on the Hub.")
    folder = Path(constants.HF_HOME) / "ddpm_demo" / owner
    try:
        with hub.sentences(f"A list of {owner}'s models"):
            found = HfApi().list_models(author=owner, filter=hub.LIBRARY, limit=MOST)
            repos = sorted(model.id for model in found)
    except CheckpointError:
        if not any(folder.glob("*/model*.safetensors")):
            raise
        return folder
    if not repos:
        raise CheckpointError(
            f"{owner} has no model on the Hub that this program has pushed "
            f"({hub.LIBRARY} as its library)."
        )
    for repo in repos:
        _link(hub.download(repo), folder / repo.partition("/")[2])
    return folder


def _link(source: Path, target: Path) -> None:
    """Link a model's files into another folder, or copy them if links aren't possible."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob(hub.OURS):
        old.unlink()
    for file in source.glob(hub.OURS):
        try:
            (target / file.name).symlink_to(file.resolve())
        except OSError:  # on Windows, links need a special right
            shutil.copy(file, target / file.name)
