"""Removes the parts of PNG files that a picture doesn't need.

Pillow refuses a PNG with large compressed texts or a large profile, because they could be made to
fill the memory. A picture doesn't need the texts, so they are left out unread.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 16_000_000  # bytes

# The chunks with pixels, colours and orientation.
_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"}
_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # chunks of another size are broken
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_ORIENTATION_IN = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
# By their numbers in ITU-T H.273: x and y of white, red, green and blue; and the gamma. BT.709 gets
# the gamma of sRGB.
_PRIMARIES = {
    1: (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_GAMMAS = {1: 1 / 2.2, 4: 1 / 2.2, 8: 1.0, 13: 1 / 2.2}
_MAX_TEXT = 1_000_000  # bytes; Pillow refuses a larger text


def without_ballast(data: bytes) -> tuple[bytes, bytes | None]:
    """Keep only the chunks of a PNG that are needed. Other files stay as they are.

    Returns:
        The bytes of the file, and the ICC profile if it was taken out.
    """
    if not data.startswith(MAGIC):
        return data, None
    parts, profile, end, colours = [MAGIC], None, len(MAGIC), _code_points(data)
    for name, start, end in _chunks(data):
        body = memoryview(data)[start + 8 : end - 4]
        if colours and (name == b"iCCP" or name in _SIZES):
            continue
        if name == b"iCCP":
            profile = _profile(bytes(body)) if profile is None else profile
        elif (
            _SIZES.get(name) == len(body)
            or name in _NEEDED
            or (name in _TEXTS and _tells_orientation(name, bytes(body)))
        ):
            parts.append(data[start:end])
            if name == b"IHDR":
                parts.append(colours)
    return b"".join([*parts, data[end:]]), profile


def _code_points(data: bytes) -> bytes:
    """Translate a chunk cICP (PNG 3.0, section 11.3.2.6) to chunks gAMA and cHRM.

    Screenshots of wide-gamut screens have this chunk. It takes precedence over a profile. HDR is
    left out, because its brightness has no meaning in sRGB.
    """
    for name, start, end in _chunks(data):
        if name == b"cICP" and end - start == 16:
            primaries, transfer, *rest = data[start + 8 : end - 4]
            if primaries in _PRIMARIES and transfer in _GAMMAS and rest == [0, 1]:
                gamma = struct.pack(">I", round(1e5 * _GAMMAS[transfer]))
                return _chunk(b"gAMA", gamma) + _chunk(
                    b"cHRM", struct.pack(">8I", *(round(1e5 * x) for x in _PRIMARIES[primaries]))
                )
    return b""


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk, until the end or the first broken chunk."""
    start = len(MAGIC)
    while start + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        yield name, start, end
        start = end


def _profile(body: bytes) -> bytes | None:
    """The profile in a chunk iCCP, which has a name, NUL, the kind of compression, and the data."""
    _, _, rest = body.partition(b"\0")
    return _unpacked(rest[1:], MAX_PROFILE)


def _tells_orientation(name: bytes, body: bytes) -> bool:
    """True if a text may hold EXIF tags and Pillow will read it."""
    if not body.startswith(_ORIENTATION_IN) or len(body) > _MAX_TEXT:
        return False
    _, _, rest = body.partition(b"\0")
    if name == b"zTXt":
        return _unpacked(rest[1:], _MAX_TEXT) is not None
    if name == b"iTXt" and rest[:1] == b"\1":
        parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        return len(parts) == 3 and _unpacked(parts[2], _MAX_TEXT) is not None
    return True


def _unpacked(data: bytes, most: int) -> bytes | None:
    """Unpack with zlib. Returns None if the data are damaged or give more than `most` bytes."""
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(data, most)
    except zlib.error:
        return None
    return found if unpack.eof else None
