"""The models that one owner has on the Hub, as a folder of shipped models: `--models hub:OWNER`."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants

from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import CheckpointError

PREFIX = "hub:"
MOST = 50  # models of an owner


@functools.cache
def folder_of(owner: str) -> Path:
    """A folder with the models that an owner has pushed with this program, by the repos' names.

    What is on this disk already is not downloaded again. Without a way to the Hub, the folder has
    what it got before.

    Raises:
        CheckpointError: no such name, no model of theirs, or no way to one.
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
    """The files of a model in another folder: links to them, or copies where none can be made."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob(hub.OURS):
        old.unlink()
    for file in source.glob(hub.OURS):
        try:
            (target / file.name).symlink_to(file.resolve())
        except OSError:  # Windows, without the right to
            shutil.copy(file, target / file.name)
