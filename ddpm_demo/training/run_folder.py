"""The folder of a training run. Only this module knows the names of its files.

The command line and the app write the same files, so `ship` accepts runs of both. Readers don't
need all of them: a run without its state can still be shipped.

    state.safetensors       the state that `--resume` goes on from
    model*.safetensors      the EMA weights, as `models.checkpoint` names them
    log.jsonl               one line for each report
    preview-000050000.png   sixteen samples after this many pictures; 0 is before the first step
    morph.gif               the previews of a fine-tuning run as a film
    film.jsonl, kept        what the app has shown, and the step whose weights it has kept
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm_demo.config import require
from ddpm_demo.data import is_folder, place_of, shown
from ddpm_demo.machine.files import require_writable, write_atomically
from ddpm_demo.media import convert, encode

SCALE = 4  # how much a preview enlarges each pixel


def pace(grids: int) -> float:
    """Frames a second for a film of `grids` frames, so that it takes about four seconds."""
    return min(15.0, max(2.0, grids / 4))


@dataclass(frozen=True)
class RunFolder:
    """The files of a training run."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def film(self) -> Path:
        return self.path / "morph.gif"

    @property
    def shown(self) -> Path:
        return self.path / "film.jsonl"

    @property
    def kept(self) -> Path:
        return self.path / "kept"

    def resumable(self) -> bool:
        """True if there is a state to go on from."""
        return self.state.is_file()

    def clear(self) -> None:
        """Delete the state, the log and the previews, so that another run can begin here."""
        for file in (self.state, self.log, *self.previews()):
            file.unlink(missing_ok=True)

    def check(self, resume: bool, dataset: str = "") -> None:
        """Check, before any work begins, that a run can be written here.

        Args:
            resume: the run may go on from the state here.
            dataset: the name of the run's data set, or folder:PATH.

        Raises:
            ValueError: a file is in the way, another run is here and `resume` is False, a model
                without a run is here, the folder is among the run's training pictures, or nothing
                can be written here.
        """
        parts = (self.path, *self.path.parents)
        folder = not any(part.exists() and not part.is_dir() for part in parts)
        require(folder, "--out", str(self.path), "a folder")
        require(
            resume or not self.state.exists(),
            "--out",
            str(self.path),
            "a folder without a run in it",
            "use --resume to go on with that run",
        )
        model = self.state.exists() or not any(self.path.glob("model*.safetensors"))
        require(model, "--out", str(self.path), "a folder without a model", "it would be lost")
        data = place_of(dataset).resolve() if is_folder(dataset) else None
        among = data is not None and self.path.resolve().is_relative_to(data)
        allowed, why = f"outside of {shown(dataset)}", "previews would become part of the data"
        require(not among, "--out", str(self.path), allowed, why)
        written = all(ord(letter) < 0xD800 or ord(letter) > 0xDFFF for letter in str(self.path))
        require(written, "--out", str(self.path), "a name in UTF-8", "weights are read by it")
        require_writable(self.path)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of the log, the oldest first. The list is empty if there is no log.

        Raises:
            ValueError: a line is not JSON.
        """
        if not self.log.is_file():
            return []
        try:
            return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        except ValueError as error:
            raise ValueError(f"{self.log} is garbled: {error}.") from None

    def add(self, row: Mapping[str, Any], preview: Tensor) -> None:
        """Add a report: a line in the log, and a preview of (16, C, H, W) samples in [-1, 1]."""
        kept = [r for r in self.rows() if r["images"] < row["images"]]  # a resumed run repeats some
        lines = "".join(json.dumps(r) + "\n" for r in [*kept, dict(row)])
        write_atomically(self.log, lines.encode())
        self.add_preview(row["images"], convert.to_uint8(preview))

    def add_preview(self, seen: int, pictures: np.ndarray) -> None:
        """Write a preview of (16, H, W, C) uint8 samples, from after `seen` training pictures."""
        self.path.mkdir(parents=True, exist_ok=True)
        sheet = convert.grid(pictures, scale=SCALE)
        encode.write(self.path / f"preview-{seen:09d}.png", [sheet])

    def previews(self) -> list[Path]:
        """The files of the previews, the oldest first."""
        return sorted(self.path.glob("preview-*.png"))

    def film_bytes(
        self, about: Mapping[str, str], keep: Collection[int] | None = None
    ) -> bytes | None:
        """The film of the run as a GIF, or None if there are fewer than two previews.

        Args:
            about: the film's metadata.
            keep: make a new film from the previews with these numbers. With None, return the
                folder's film, or make one from all previews.
        """
        if keep is None and self.film.is_file():
            return self.film.read_bytes()
        files = [f for i, f in enumerate(self.previews()) if keep is None or i in keep]
        if len(files) < 2:
            return None
        sheets = []
        for file in files:
            with Image.open(file) as sheet:
                sheets.append(np.asarray(sheet.convert("RGB")))
        return encode.encode(sheets, "gif", fps=pace(len(sheets) - 1), metadata=about)

    def write_film(self, about: Mapping[str, str], keep: Collection[int]) -> None:
        """Write a film of the previews with these numbers, if there are at least two."""
        if film := self.film_bytes(about, keep):
            write_atomically(self.film, film)
