"""Pictures in memory, with their labels. Torch and numpy are imported where they are needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ddpm_demo.config.setting import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RESIDENT = 0.25  # share of a GPU's memory that pictures may live in
NO_LABEL = -1


class DataError(ValueError):
    """The data can't be had; the message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Images:
    """Pictures and labels.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, indices into `classes`; `NO_LABEL` where a picture has none.
        classes: their names, or none.
        flip: whether a mirrored picture is still one of the data set.
        skipped: what was left out, with the reason, a sentence each.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    flip: bool = False
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Tensor) -> Tensor:
        """(len(index), C, H, W) float32 in [-1, 1]."""
        return self.pixels[index].float() / 127.5 - 1

    def on(self, device: torch.device) -> Images:
        """The same with the pixels on a GPU, if it has the room; batches then come from there."""
        import torch

        if device.type != "cuda":
            return self
        fits = (
            self.pixels.nbytes <= RESIDENT * torch.cuda.get_device_properties(device).total_memory
        )
        return replace(self, pixels=self.pixels.to(device)) if fits else self

    def take(self, index: Tensor) -> Images:
        """The pictures at these places, in their order."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def part(self, words: str) -> Tensor:
        """The places of so many pictures: "100" are the first 100, "100:200" those after them.

        The order goes from class to class, and takes the next picture of each: a part has about as
        many of each class, and parts that don't overlap share no picture.

        Raises:
            ValueError: the words name no such part.
        """
        import torch

        first, _, last = words.rpartition(":")
        ok = (first or "0").isdecimal() and last.isdecimal() and len(words) < 40
        start, stop = (int(first or 0), int(last)) if ok else (0, 0)
        allowed = f"a number from 1 to {len(self):,}, or FROM:TO"
        require(start < stop <= len(self), "pictures", words, allowed)
        turn = torch.empty_like(self.labels)  # how many of its class come before it
        for label in self.labels.unique():
            mine = (self.labels == label).nonzero()[:, 0]
            turn[mine] = torch.arange(len(mine))
        order = turn * (self.labels.max() + 2) + self.labels
        return order.argsort(stable=True)[start:stop]

    def digests(self) -> Tensor:
        """(N,) int64: a hash of each picture and its label; its name and place do not count."""
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
            ", ".join(self.classes) or "none, as the data has no classes",
        )
        keep = self.labels == self.classes.index(name)
        return replace(self, pixels=self.pixels[keep], labels=self.labels[keep])
