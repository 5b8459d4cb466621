"""A thousand uploads, good and bad: each gives the right picture or one sentence."""

import base64
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image, ImageOps

from ddpm_demo.ui.forward import handlers as forward

SIZE = 32
FIRST, CONTROLS = "the first example", (SIZE, "gaussian", 0)
GONE = gr.skip()
LOSSY = {"JPEG": 12, "JPEG2000": 12, "MPO": 12, "WEBP": 12, "AVIF": 16, "GIF": 12, "BLP": 12}
Case = tuple[str, bytes, np.ndarray | None, float]
"""What it is, the file, the picture if it has to be shown, and how far that may be off on average.
"""


def photo(rng: random.Random) -> Image.Image:
    """Smooth, with no symmetry."""
    w, h = rng.randint(24, 72), rng.randint(24, 72)
    y, x = np.mgrid[0:h, 0:w]
    planes = [
        rng.randint(60, 200) + 50 * np.sin(x / rng.uniform(9, 30) + y / rng.uniform(9, 30))
        for _ in range(3)
    ]
    return Image.fromarray(np.stack(planes, -1).round().astype(np.uint8))


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(image: Image.Image) -> np.ndarray:
    """The picture that is to be seen, (SIZE, SIZE, 3)."""
    return np.asarray(ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), Image.Resampling.LANCZOS))


def every_format(rng: random.Random) -> Iterator[Case]:
    """What Pillow can write, in every mode that it can write it in."""
    Image.init()
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "I", "F", "YCbCr", "LAB"):
            image = photo(rng).resize((32, 32))
            try:
                shown = image.convert("L") if mode in ("I;16", "I", "F", "LA", "1") else image
                shown = shown.convert(mode)
                data = save(shown, kind)
                back = Image.open(io.BytesIO(data))
                back.load()
            except Exception:  # it can't, or can't read it
                continue
            exact = back.mode == mode in ("RGB", "L", "1", "P", "CMYK")
            exact = exact and kind not in ("EPS", "ICNS")  # refused; of sizes of its own
            wanted = cut(shown) if exact else None
            yield f"{kind} {mode}", data, wanted, LOSSY.get(kind, 0.5)


def deep_or_turned(rng: random.Random) -> Iterator[Case]:
    """16 bits, EXIF orientations, animations, colours of printers."""
    upright = photo(rng)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(turn)  # its inverse
        stored = upright if back is None else upright.transpose(Image.Transpose(back))
        for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
            data = save(stored, kind, exif=exif)
            yield f"{kind} turned {turn}", data, cut(upright), LOSSY.get(kind, 0.5)
    grey = np.asarray(photo(rng).convert("L")).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        wanted = cut(Image.fromarray(grey.astype(np.uint8)))
        yield f"{kind} of 16 bits", save(Image.fromarray(grey * 257), kind), wanted, 1
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        first, *others = (photo(rng).resize((40, 40)) for _ in range(4))
        data = save(first, kind, save_all=True, append_images=others)
        yield f"animated {kind}", data, cut(first), LOSSY.get(kind, 0.5)
    inks = photo(rng).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        yield f"{kind} in CMYK", save(inks, kind), cut(inks), 6


def huge(rng: random.Random) -> Iterator[Case]:
    """Headers that promise far more than is there."""
    w, h = rng.randint(9_000, 65_000), rng.randint(9_000, 65_000)

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(9000)))
    files = {
        "PNG": b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""),
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 999, 0, 0, 54, 40, w, h, 1, 24, *[0] * 6),
        "GIF": b"GIF89a"
        + struct.pack("<HHBBB", w, h, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, w, h, 0)
        + b"\x08\x02L\x01\0;",
        "PPM": f"P6 {w} {h} 255\n".encode() + bytes(99),
        "DDS": b"DDS " + struct.pack("<IIII", 124, 0x1007, h, w) + bytes(999),
    }
    jpeg = bytearray(save(photo(rng), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", h, w)
    files["JPEG"] = bytes(jpeg)
    for kind, data in files.items():
        yield f"huge {kind}", data, None, 0


def no_picture(rng: random.Random) -> Iterator[Case]:
    heads = (
        b"",
        b"%PDF-1.7\n",
        b"PK\3\4",
        b"<svg xmlns=",
        b"<html>",
        b"ID3",
        b"\x7fELF",
        b"GIF89a",
    )
    for head in (
        *heads,
        b"RIFF\xff\xff\xff\xffWEBP",
        b"\xff\xd8\xff",
        b"II*\0",
        b"\x89PNG\r\n\x1a\n",
    ):
        yield f"{head[:8]!r} and noise", head + rng.randbytes(rng.randint(0, 3000)), None, 0


def damaged(rng: random.Random) -> Iterator[Case]:
    """Cut off or with flipped bits, most of them near the start, where the structure is."""
    kinds = (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "JPEG2000",
        "ICO",
        "TGA",
        "PCX",
        "PPM",
        "SGI",
    )
    for kind in kinds:
        clean = save(photo(rng).resize((32, 32)), kind)
        yield f"{kind} cut off", clean[: rng.randrange(1, len(clean))], None, 0
        data = bytearray(clean)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), rng.choice((40, 400, 10**6))))] ^= 1 << rng.randrange(
                8
            )
        yield f"{kind} with flipped bits", bytes(data), None, 0


def thousand() -> list[Case]:
    kinds: list[Callable[[random.Random], Iterator[Case]]]
    kinds, found, rng = [deep_or_turned, huge, no_picture, damaged], [], random.Random(0)
    found += every_format(rng)
    while len(found) < 1000:
        found += [case for kind in kinds for case in kind(rng)]
    return found


@pytest.mark.filterwarnings("ignore")  # as in the running program; an error would hide the rest
def test_a_thousand_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    shown = refused = 0
    for name, data, wanted, off in thousand():
        path = tmp_path / "upload.png"
        path.write_bytes(data)
        said.clear()
        start = time.thread_time()
        given = {"path": str(path)}
        message, picture, kept = forward.set_picture(FIRST, given, "", *CONTROLS)
        assert time.thread_time() - start < 5, name
        if said:
            assert wanted is None, (name, said)
            assert (message, picture, kept) == (GONE, FIRST, GONE), name
            assert len(said) == 1, name
            assert len(said[0]) < 400, (name, said)
            assert "\n" not in said[0], (name, said)
            assert "Traceback" not in said[0], (name, said)
            refused += 1
            continue
        x_0 = np.frombuffer(base64.b64decode(json.loads(message)["picture"]["x0"]), np.uint8)
        assert x_0.size == 3 * SIZE**2, name
        if wanted is not None:
            assert np.abs(x_0.reshape(wanted.shape).astype(int) - wanted).mean() <= off, name
        path.unlink()  # what is kept needs no file
        again, *_ = forward.set_picture(FIRST, {"url": picture["url"]}, kept, *CONTROLS)
        assert again == message, name
        shown += 1
    assert shown + refused >= 1000
    assert min(shown, refused) > 250


@pytest.mark.parametrize("kept", ["x", forward.PNG, forward.PNG + "AAAA", [1], {"a": 1}, 10**30])
def test_a_forged_picture_is_refused_in_one_sentence(
    kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    message, *_ = forward.set_picture(FIRST, None, kept, *CONTROLS)
    assert message == GONE
    assert len(said) == 1
