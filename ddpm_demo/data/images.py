"""Pictures in memory, with their labels. Torch and numpy are imported where they are needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ddpm_demo.config import either, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RESIDENT = 0.25  # the share of a GPU's memory that pictures may take
NO_LABEL = -1


class DataError(ValueError):
    """The data can't be loaded. The message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Images:
    """Pictures and labels.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64 indices into `classes`; `NO_LABEL` for a picture without a class.
        classes: the names of the classes, or none.
        flip: True if a mirrored picture could belong to the data set.
        skipped: a sentence about each file that was left out, with the reason.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    flip: bool = False
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Tensor) -> Tensor:
        """The pictures with these indices, as (len(index), C, H, W) float32 in [-1, 1]."""
        return self.pixels[index].float() / 127.5 - 1

    def on(self, device: torch.device) -> Images:
        """Move the pixels to a GPU, if it has room for them. `batch` then works on the GPU."""
        import torch

        if device.type != "cuda":
            return self
        fits = (
            self.pixels.nbytes <= RESIDENT * torch.cuda.get_device_properties(device).total_memory
        )
        return replace(self, pixels=self.pixels.to(device)) if fits else self

    def take(self, index: Tensor) -> Images:
        """The pictures with these indices, in this order."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def part(self, words: str) -> Tensor:
        """The indices of a part of the pictures: "100" is the first 100, "100:200" the next 100.

        The order takes the first picture of each class, then the second of each, and so on. So a
        part has about equally many pictures of each class. Parts that don't overlap share no
        pictures.

        Raises:
            ValueError: the words are not such a part.
        """
        import torch

        first, _, last = words.rpartition(":")
        ok = (first or "0").isdecimal() and last.isdecimal() and len(words) < 40
        start, stop = (int(first or 0), int(last)) if ok else (0, 0)
        allowed = f"a number from 1 to {len(self):,}, or FROM:TO"
        require(start < stop <= len(self), "pictures", words, allowed)
        turn = torch.empty_like(self.labels)  # how many pictures of its class come before it
        for label in self.labels.unique():
            mine = (self.labels == label).nonzero()[:, 0]
            turn[mine] = torch.arange(len(mine))
        order = turn * (self.labels.max() + 2) + self.labels
        return order.argsort(stable=True)[start:stop]

    def digests(self) -> Tensor:
        """(N,) int64 hashes of each picture with its label. Its name and index don't count."""
        import numpy as np
        import torch

        found = np.empty(len(self), np.int64)
        shape = str(tuple(self.pixels.shape[1:])).encode()
        for i, (picture, label) in enumerate(zip(self.pixels.cpu(), self.labels, strict=True)):
            data = shape + str(int(label)).encode() + picture.contiguous().numpy().tobytes()
            found[i] = np.frombuffer(hashlib.sha1(data).digest()[:8], np.int64)[0]
        return torch.from_numpy(found)

    def only(self, name: str) -> Images:
        """The pictures of one class.

        Raises:
            ValueError: there is no such class.
        """
        require(
            name in self.classes,
            "class",
            name,
            either(self.classes),
            "" if self.classes else "the data has no classes",
        )
        keep = self.labels == self.classes.index(name)
        return replace(self, pixels=self.pixels[keep], labels=self.labels[keep])
