"""Finds and downloads DDPMs on the Hub.

A repo holds a model in diffusers' format, or one that this program has saved or pushed. Downloads
go to huggingface-hub's own cache.
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

from ddpm_demo.config import SettingError
from ddpm_demo.models.checkpoint import CheckpointError, model_files
from ddpm_demo.models.diffusers_config import INDEX, SCHEDULER, SCHEDULER_FLAT, UNET, UNET_FLAT
from ddpm_demo.models.diffusers_format import missing, read_configs, weight_files
from ddpm_demo.models.listed import DATASETS as DATASETS
from ddpm_demo.models.listed import LISTED as LISTED

LIMIT_VARIABLE = "DDPM_DEMO_HUB_MB"  # an environment variable
CONFIGS = [INDEX, UNET, UNET_FLAT, SCHEDULER, SCHEDULER_FLAT]
OURS = "model*.safetensors*"  # how `checkpoint.save_checkpoint` names its files
SUFFIX = ".safetensors"  # a name that ends like this is a file, not a repo
HERE = ("localhost", "127.0.0.1", "::1")
LIBRARY = "ddpm_demo"  # the library that our model cards name


@dataclass(frozen=True)
class RepoInfo:
    """What a download of a repo would bring.

    Attributes:
        files: the files that would be downloaded, with their sizes in bytes.
        licence: the licence that the repo states, or None.
        downloads: the number of downloads in the last month.
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
    """Say if a part of a repo is on this disk. Used in messages about failed downloads."""
    folder = _snapshot(repo_id)
    if folder and (lacks := _lacking(folder)):
        return f"{repo_id} is only in part on this disk, without {', '.join(lacks)}"
    return f"{repo_id} is not on this disk"


def _unreachable(error: Exception) -> bool:
    """True if there is no connection to the Hub, or no answer in time.

    The error's class is compared by name: depending on the version of huggingface-hub, it belongs
    to httpx or httpx2.
    """
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _ask_a_stand_in_directly() -> None:
    """Use no proxy for a server on this machine that stands in for the Hub (HF_ENDPOINT)."""
    host, proxies = urlsplit(constants.ENDPOINT).hostname or "", getproxies_environment()
    told = proxies.pop("no", "")
    names = [name.strip() for name in told.split(",") if name.strip()]
    if proxies and host in HERE and not {host, "*"} & set(names):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*names, host])


@contextmanager
def sentences(repo_id: str) -> Iterator[None]:
    """Turn the Hub's long errors into a `CheckpointError` of one sentence."""
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
    except Exception as error:  # errors of httpx or httpx2, a full disk, and others
        if _unreachable(error):
            raise CheckpointError(
                f"{_where(repo_id)}, and the Hub can't be reached: there is no connection. The "
                "shipped models work without one."
            ) from None
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{_where(repo_id)} and can't be downloaded ({reason}).") from None


def describe(repo_id: str) -> RepoInfo:
    """Ask the Hub what a download of a repo would bring.

    Raises:
        CheckpointError: there is no such repo, no access to it, or no connection to the Hub. Or the
            repo has neither a UNet2DModel's weights nor a model of this program.
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
    """The folder of a repo in the cache, even if files are missing. None if there is no folder."""
    try:
        found = snapshot_download(repo_id, allow_patterns=CONFIGS, local_files_only=True)
    except (OSError, HFValidationError):
        return None
    except RuntimeError:  # pathlib found no home folder
        raise CheckpointError(
            "No home folder is known, so there is no place for downloads: name one (HF_HOME)."
        ) from None
    return Path(found)


def _lacking(folder: Path) -> list[str]:
    """The files that a folder lacks to be a whole model, in our format or diffusers'."""
    try:
        ours = model_files(folder)
    except CheckpointError:
        ours = []
    return [file.name for file in ours if not file.is_file()] if ours else missing(folder)


def cached(repo_id: str) -> Path | None:
    """The folder of a repo if all of it is on this disk, or None. The Hub is not asked."""
    folder = _snapshot(repo_id)
    return folder if folder and not _lacking(folder) else None


def limit() -> float:
    """The most bytes of a download: 2 GB, or the MB in the environment variable DDPM_DEMO_HUB_MB.

    Raises:
        CheckpointError: the variable is not a number.
    """
    words = os.environ.get(LIMIT_VARIABLE, "2000")
    try:
        megabytes = float(words)
    except ValueError:
        megabytes = math.nan
    if not megabytes >= 0:
        raise CheckpointError(str(SettingError(LIMIT_VARIABLE, words, "a number of megabytes")))
    return megabytes * 1e6


class Silent(tqdm):  # type: ignore[type-arg]  # not subscriptable when run
    """A progress bar that shows nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"disable": True})


def download(
    repo_id: str, *, most: float | None = None, tqdm_class: type[tqdm[Any]] | None = None
) -> Path:
    """Download a repo to the Hub's cache, if it isn't there yet, and return its folder.

    Only the configurations and one format of weights are downloaded, and only the files that are
    missing. The configurations come first, so a model that can't be used costs a few kilobytes. If
    the whole repo is on this disk, the Hub is not asked.

    Args:
        most: the most bytes; a larger repo is not downloaded. By default `limit()`.
        tqdm_class: makes the progress bars for the weights, two that count bytes (unit "B") and one
            that counts files. Other threads update them. By default the Hub's own.

    Raises:
        CheckpointError: the repo isn't there, can't be used or is too big, or the download failed.
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
    """True if `source` could be the name of a repo. It could still be the name of a folder."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source)) and not source.endswith(SUFFIX)
