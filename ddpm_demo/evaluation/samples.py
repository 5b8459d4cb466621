"""Draws many samples of a model, to measure it. Each page is saved, so a killed run can go on."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm_demo.config import SampleConfig
from ddpm_demo.evaluation.features import Extractor, Summary
from ddpm_demo.inference.generate import generate
from ddpm_demo.machine.files import write_atomically
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint, digest

PAGE = 100  # the most pictures that are drawn and saved at once


def pages(config: SampleConfig, most: int) -> list[SampleConfig]:
    """Split a run into batches of about equal size, with at most `most` pictures each."""
    size = math.ceil(config.n / math.ceil(config.n / most))
    return [
        dataclasses.replace(config, n=min(size, config.n - start), seed=config.seed + start)
        for start in range(0, config.n, size)
    ]


class Samples:
    """The n samples of one setting, as pages on disk. Pages that are there are not drawn again.

    A page is one batch. The folder's name has a hash of the weights and all settings, so each model
    and setting has its own pages.

    Args:
        cache: the folder in which the run makes its own folder.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: SampleConfig,
        *,
        bf16: bool = False,
        cache: Path,
    ) -> None:
        self.checkpoint, self.config, self.bf16 = checkpoint, config, bf16
        self.pages = pages(config, PAGE)
        about = {
            "model": dataclasses.asdict(checkpoint.model.config),
            "diffusion": dataclasses.asdict(checkpoint.diffusion),
            "sample": dataclasses.asdict(config),
            "bf16": bf16,
        }
        own = digest(checkpoint.model, json.dumps(about, sort_keys=True).encode())
        self.folder = cache / f"{checkpoint.name}-{own}"

    def path(self, page: SampleConfig) -> Path:
        return self.folder / f"{page.seed:09d}.npz"

    def draw(self, rank: int = 0, world: int = 1) -> Iterator[int]:
        """Draw the missing pages, and yield the number of steps done in this run.

        Each process of a group has another `rank` and draws every `world`-th page. All of them
        write to the same folder.
        """
        done = 0
        for page in self.pages[rank::world]:
            if self.read(page) is None:
                for step in generate(self.checkpoint, page, bf16=self.bf16):
                    done += min(step.index, 1)
                    yield done
                buffer = io.BytesIO()
                pictures = convert.to_uint8(step.x_t)
                np.savez_compressed(buffer, np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path(page), buffer.getvalue())

    def read(self, page: SampleConfig) -> Tensor | None:
        """The (n, C, H, W) uint8 pictures of a page. None if its file is missing or broken."""
        try:
            with np.load(self.path(page)) as file:
                pictures = torch.from_numpy(file["arr_0"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return pictures if len(pictures) == page.n else None

    @property
    def missing(self) -> list[SampleConfig]:
        """The pages that are not drawn yet."""
        return [page for page in self.pages if self.read(page) is None]

    def summaries(self, extractors: Sequence[Extractor], keep: int = 0) -> list[Summary]:
        """Summarise all pages with each extractor.

        Raises:
            OSError: a page is missing.
        """
        found = [Summary(keep) for _ in extractors]
        for page in self.pages:
            if (pictures := self.read(page)) is None:
                raise OSError(f"{self.path(page)} is missing.")
            for summary, extractor in zip(found, extractors, strict=True):
                summary.add(*extractor.extract(pictures))
        return found
