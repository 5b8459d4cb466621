"""The folder of a run: the one place that knows what its files are called.

A run that the command line makes and one that the app makes leave the same files, so `ship` takes
either. Each file is optional to a reader: a run that came without its state can still be shipped.

    state.safetensors       what `--resume` goes on from
    model*.safetensors      the EMA weights, as `models.checkpoint` names them
    log.jsonl               a line a report
    preview-000050000.png   sixteen samples after so many pictures; 0 is the model it began as
    morph.gif               the previews as a film, of a fine-tuning
    film.jsonl, kept        what the app has shown, and the step that it has kept a copy of
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

from ddpm_demo.config.setting import require
from ddpm_demo.data import is_folder, place_of, shown
from ddpm_demo.files import require_writable, write_atomically
from ddpm_demo.media import convert, encode

SCALE = 4  # of the pixels in a preview


def pace(grids: int) -> float:
    """Frames a second of a film of so many grids: it takes about four seconds."""
    return min(15.0, max(2.0, grids / 4))


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, by what they are."""

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
        """Whether there is a state to go on from."""
        return self.state.is_file()

    def clear(self) -> None:
        """Delete the state, the log and the samples: another run begins here."""
        for file in (self.state, self.log, *self.previews()):
            file.unlink(missing_ok=True)

    def check(self, resume: bool, dataset: str = "") -> None:
        """Find out before any work whether a run can be written here.

        Args:
            dataset: what the run learns from, in words.

        Raises:
            ValueError: a file is in the way, another run is here and `resume` is not asked for, a
                model without a run is here, the folder lies among the run's own pictures, or
                nothing can be written.
        """
        parts = (self.path, *self.path.parents)
        folder = not any(part.exists() and not part.is_dir() for part in parts)
        require(folder, "--out", str(self.path), "a folder")
        require(
            resume or not self.state.exists(),
            "--out",
            str(self.path),
            "a folder without a run in it, or --resume to go on with that run",
        )
        model = self.state.exists() or not any(self.path.glob("model*.safetensors"))
        require(model, "--out", str(self.path), "a folder without a model, which would be lost")
        data = place_of(dataset).resolve() if is_folder(dataset) else None
        among = data is not None and self.path.resolve().is_relative_to(data)
        allowed = f"one outside of {shown(dataset)}: else previews would become part of the data"
        require(not among, "--out", str(self.path), allowed)
        written = all(ord(letter) < 0xD800 or ord(letter) > 0xDFFF for letter in str(self.path))
        require(written, "--out", str(self.path), "a name in UTF-8, which weights are read by")
        require_writable(self.path)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of the log, the oldest first; none if there is no log.

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
        """Add a report: its line in the log, and its samples, (16, C, H, W) in [-1, 1]."""
        kept = [r for r in self.rows() if r["images"] < row["images"]]  # a killed run comes again
        lines = "".join(json.dumps(r) + "\n" for r in [*kept, dict(row)])
        write_atomically(self.log, lines.encode())
        self.add_preview(row["images"], convert.to_uint8(preview))

    def add_preview(self, seen: int, pictures: np.ndarray) -> None:
        """Keep samples, (16, H, W, C) uint8, drawn after so many pictures seen."""
        self.path.mkdir(parents=True, exist_ok=True)
        sheet = convert.grid(pictures, scale=SCALE)
        encode.write(self.path / f"preview-{seen:09d}.png", [sheet])

    def previews(self) -> list[Path]:
        """The sheets of samples, the oldest first."""
        return sorted(self.path.glob("preview-*.png"))

    def film_bytes(
        self, about: Mapping[str, str], keep: Collection[int] | None = None
    ) -> bytes | None:
        """The film, as a GIF: that of the folder, or else its previews; None if there is neither.

        Args:
            about: metadata of the film.
            keep: numbers of the previews to show; None: all. The film is then made anew.
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
        """Make a film of the previews, if there are two."""
        if film := self.film_bytes(about, keep):
            write_atomically(self.film, film)
