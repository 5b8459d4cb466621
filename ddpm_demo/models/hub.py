"""DDPMs on the Hub: what a repo would bring, its download, and what is here already.

A repo holds a model as diffusers publishes them, or one that this program has saved or pushed.
The cache is huggingface-hub's.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tqdm.auto import tqdm

from ddpm_demo.models.checkpoint import CheckpointError, model_files
from ddpm_demo.models.diffusers_config import INDEX, SCHEDULER, SCHEDULER_FLAT, UNET, UNET_FLAT
from ddpm_demo.models.diffusers_format import missing, read_configs, weight_files
from ddpm_demo.models.listed import DATASETS as DATASETS
from ddpm_demo.models.listed import LISTED as LISTED

LIMIT_VARIABLE = "DDPM_DEMO_HUB_MB"  # of the environment
CONFIGS = [INDEX, UNET, UNET_FLAT, SCHEDULER, SCHEDULER_FLAT]
OURS = "model*.safetensors*"  # as `checkpoint.save_checkpoint` names its files
SUFFIX = ".safetensors"  # of a file, which is no repo
HERE = ("localhost", "127.0.0.1", "::1")
LIBRARY = "ddpm_demo"  # what the card of a model of this program says


@dataclass(frozen=True)
class RepoInfo:
    """What a repo would bring.

    Attributes:
        files: name and bytes of every file that would be downloaded.
        licence: as the repo states it, or None.
        downloads: in the last month.
    """

    repo_id: str
    files: Mapping[str, int]
    licence: str | None
    downloads: int

    @property
    def size(self) -> int:
        return sum(self.files.values())

    def __str__(self) -> str:
        licence = f"licence {self.licence}" if self.licence else "no licence stated"
        return f"{self.repo_id}: {self.size / 1e6:,.0f} MB, {licence}, {self.downloads:,} downloads"


def _where(repo_id: str) -> str:
    """Whether a repo that can't be had is on this disk in part."""
    folder = _snapshot(repo_id)
    if folder and (lacks := _lacking(folder)):
        return f"{repo_id} is only in part on this disk, without {', '.join(lacks)}"
    return f"{repo_id} is not on this disk"


def _unreachable(error: Exception) -> bool:
    """Whether there is no connection to the Hub, or no answer in time.

    By name, as it is a class of httpx or of httpx2, by the Hub's version.
    """
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _ask_a_stand_in_directly() -> None:
    """A server in the Hub's place on this machine (HF_ENDPOINT) is asked without a proxy."""
    host, proxies = urlsplit(constants.ENDPOINT).hostname or "", getproxies_environment()
    told = proxies.pop("no", "")
    names = [name.strip() for name in told.split(",") if name.strip()]
    if proxies and host in HERE and not {host, "*"} & set(names):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*names, host])


@contextmanager
def sentences(repo_id: str) -> Iterator[None]:
    """Say in one sentence what the Hub answers at length."""
    _ask_a_stand_in_directly()
    try:
        yield
    except HFValidationError:
        example = next(iter(LISTED))
        raise CheckpointError(
            f"{repo_id!r} is not the name of a repo; one is like {example}."
        ) from None
    except GatedRepoError:
        raise CheckpointError(
            f"{repo_id} is gated: ask for access on its page, then log in with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"There is no {repo_id} on this disk or on the Hub, or it is private: `hf auth login` "
            "shows the Hub who you are."
        ) from None
    except OfflineModeIsEnabled:
        raise CheckpointError(
            f"{_where(repo_id)}, and HF_HUB_OFFLINE forbids to ask the Hub for it."
        ) from None
    except Exception as error:  # httpx's or httpx2's errors by the Hub's version, a full disk
        if _unreachable(error):
            raise CheckpointError(
                f"{_where(repo_id)}, and the Hub can't be reached: is there a network?"
            ) from None
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{_where(repo_id)} and can't be downloaded ({reason}).") from None


def describe(repo_id: str) -> RepoInfo:
    """Ask the Hub what a repo would bring.

    Raises:
        CheckpointError: no such repo, no access to it, no Hub, or neither a UNet2DModel's weights
            nor a model of this program in it.
    """
    with sentences(repo_id):
        info = HfApi().model_info(repo_id, files_metadata=True, timeout=10)
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    at = "unet/" if "unet/config.json" in sizes else ""
    weights = weight_files([n.removeprefix(at) for n in sizes if n.startswith(at)])
    names = [n for n in CONFIGS if n in sizes] + [at + n for n in weights]
    if not weights and info.library_name == LIBRARY:
        names = weights = fnmatch.filter(sizes, OURS)
    if not weights:
        raise CheckpointError(
            f"{repo_id} is no unconditional diffusion model: there is no whole "
            "diffusion_pytorch_model.safetensors or .bin in it, and it is not of ddpm_demo."
        )
    licences = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    return RepoInfo(
        repo_id, {n: sizes[n] for n in names}, next(iter(licences), None), info.downloads or 0
    )


def _snapshot(repo_id: str) -> Path | None:
    """The folder of a repo in the cache, whatever is in it."""
    try:
        found = snapshot_download(repo_id, allow_patterns=CONFIGS, local_files_only=True)
    except (OSError, HFValidationError):
        return None
    except RuntimeError:  # of pathlib
        raise CheckpointError(
            "No home folder is known, so there is no place for downloads: name one (HF_HOME)."
        ) from None
    return Path(found)


def _lacking(folder: Path) -> list[str]:
    """What a folder needs to be a whole model, of either kind."""
    try:
        ours = model_files(folder)
    except CheckpointError:
        ours = []
    return [file.name for file in ours if not file.is_file()] if ours else missing(folder)


def cached(repo_id: str) -> Path | None:
    """The folder of a repo that is whole on this disk, without asking the Hub."""
    folder = _snapshot(repo_id)
    return folder if folder and not _lacking(folder) else None


def limit() -> float:
    """Bytes that a download may have: 2 GB, or as many MB as the environment's DDPM_DEMO_HUB_MB.

    Raises:
        CheckpointError: that is no number.
    """
    words = os.environ.get(LIMIT_VARIABLE, "2000")
    try:
        megabytes = float(words)
    except ValueError:
        megabytes = math.nan
    if not megabytes >= 0:
        raise CheckpointError(f"{LIMIT_VARIABLE} is {words!r}; allowed is a number of megabytes.")
    return megabytes * 1e6


class Silent(tqdm):  # type: ignore[type-arg]  # not subscriptable when run
    """A progress bar that shows nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"disable": True})


def download(
    repo_id: str, *, most: float | None = None, tqdm_class: type[tqdm[Any]] | None = None
) -> Path:
    """The folder of a repo in the Hub's cache: configurations and one format of weights.

    A repo that is whole on this disk is not asked for again; of another, only what is missing is
    downloaded. The configurations come first, so a model that can't be used costs a few kilobytes.

    Args:
        most: bytes; of a repo with more, nothing is downloaded. By default `limit()`.
        tqdm_class: makes the progress bars of the weights, two in bytes (unit "B") and one in
            files; the Hub's own by default. They are updated from other threads.

    Raises:
        CheckpointError: it isn't there, can't be used, is too big, or the way to it broke off.
    """
    if folder := cached(repo_id):
        return folder
    about = describe(repo_id)
    most = limit() if most is None else most
    if about.size > most:
        raise CheckpointError(
            f"{repo_id} has {about.size / 1e6:,.0f} MB; the limit is {most / 1e6:,.0f} MB, "
            f"and {LIMIT_VARIABLE} in the environment sets another."
        )

    def fetch(names: list[str], bars: type[tqdm[Any]] | None) -> Path:
        with sentences(repo_id):
            folder = Path(snapshot_download(repo_id, allow_patterns=names, tqdm_class=bars))
        for name in names:
            if not (folder / name).is_file() or (folder / name).stat().st_size < about.files[name]:
                raise CheckpointError(
                    f"{repo_id} came without the whole of {name}: delete the folder "
                    f"{folder.parent.parent}, and download it again."
                )
        return folder

    if configs := [n for n in about.files if n in CONFIGS]:
        read_configs(fetch(configs, Silent), repo_id)
    return fetch(list(about.files), tqdm_class)


def is_repo(source: str) -> bool:
    """Whether it could be the name of a repo; such a name can also be that of a folder."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source)) and not source.endswith(SUFFIX)
