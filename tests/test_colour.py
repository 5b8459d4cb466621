"""What a file's numbers mean: profiles, gamma, and files with more in them than a picture needs.

Profiles are built here from their definitions. littlecms, which browsers don't use, is not asked
what is right: sRGB's numbers are computed from the primaries in float64.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ddpm_demo.media.open import ImageError, open_image, suffixes

COLOURS = np.array(
    [[220, 30, 30], [30, 200, 60], [20, 60, 210], [128, 128, 128], [250, 240, 230], [90, 60, 30]]
)
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
WHITE = (0.3127, 0.3290)  # D65
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(3, 3) from linear RGB to XYZ under D65."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    x, y = WHITE
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def linear(values: np.ndarray) -> np.ndarray:
    v = values / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    light = light.clip(0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * values).round().astype(np.uint8)


def in_p3(colours: np.ndarray) -> np.ndarray:
    """Display P3's numbers of colours of sRGB."""
    return encoded(linear(colours) @ (np.linalg.inv(to_xyz(P3)) @ to_xyz(SRGB)).T)


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def icc(
    space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ "
) -> bytes:
    """A profile of version 2 (ICC.1:2001-04)."""
    head, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        head += name + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    start = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, kind, space, pcs, bytes(12), b"acsp"
    )
    start += bytes(28) + fixed(*D50)
    return start.ljust(128, b"\0") + struct.pack(">I", len(tags)) + head + body


def curve() -> bytes:
    """sRGB's, as a table of 1,024."""
    table = (65535 * linear(np.linspace(0, 255, 1024))).round().astype(">u2").tobytes()
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + table


def xyz(column: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*column)


ABOUT = {b"wtpt": xyz(D50), b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"P\0" + bytes(79)}


def rgb_profile(primaries: tuple[tuple[float, float], ...]) -> bytes:
    matrix = to_xyz(primaries)
    cones = BRADFORD @ matrix.sum(1)
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / cones) @ BRADFORD @ matrix
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve())
    return icc(b"RGB ", ABOUT | {n: xyz(c) for n, c in names} | curves)


def grey_profile(gamma: float) -> bytes:
    kind = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return icc(b"GRAY", ABOUT | {b"kTRC": kind})


def cmyk_profile() -> bytes:
    """All inks are grey, and black alone has a meaning: L* = 100 - 100 K."""
    ramp = bytes(range(256))
    grid = b"".join(bytes([0 if k else 255, 128, 128]) for _ in range(8) for k in (0, 1))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + grid + ramp * 3
    return icc(b"CMYK", ABOUT | {b"A2B0": table}, b"prtr", b"Lab ")


def save(values: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(colours: np.ndarray) -> np.ndarray:
    """Fields of 16 x 16, so that a lossy format keeps their middles."""
    return np.asarray(colours, np.uint8)[None].repeat(16, 0).repeat(16, 1)


def middles(source: object) -> np.ndarray:
    image = open_image(source)
    assert image.mode == "RGB"
    assert not image.info
    return np.asarray(image)[8, 8::16].astype(int)


LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_a_photo_in_display_p3(kind: str) -> None:
    red = np.array([255, 0, 0])
    assert in_p3(red).tolist() == [234, 51, 35]  # as CSS Color 4 has it: 0.9175 0.2003 0.1386
    options = (LOSSLESS | LOSSY)[kind]
    data = save(picture(in_p3(COLOURS)), kind, icc_profile=rgb_profile(P3), **options)
    np.testing.assert_allclose(middles(data), COLOURS, atol=2 if kind in LOSSLESS else 6)


def test_transparency_and_palettes_keep_their_colours() -> None:
    profile, given = rgb_profile(P3), picture(in_p3(COLOURS))
    clear = np.dstack([given, np.full(given.shape[:2], 255, np.uint8)])
    clear[:, :16, 3] = 0
    got = middles(save(clear, icc_profile=profile))
    assert got[0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(got[1:], COLOURS[1:], atol=2)
    palette = Image.fromarray(given).quantize(8)
    np.testing.assert_allclose(middles(save(palette, icc_profile=profile)), COLOURS, atol=3)


def test_a_profile_of_srgb_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for profile in (
        rgb_profile(SRGB),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ):
        got = np.asarray(open_image(save(noise, icc_profile=profile)))
        np.testing.assert_array_equal(got, noise)


@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_profiles(mode: str, gamma: float) -> None:
    levels = np.array([0, 60, 128, 200, 255] if mode != "1" else [0, 255])
    wanted = encoded((levels / 255) ** gamma)
    image = Image.fromarray(picture(levels)).convert(mode)
    got = middles(save(image, icc_profile=grey_profile(gamma)))
    np.testing.assert_allclose(got, np.repeat(wanted[:, None], 3, 1), atol=2)


def test_a_grey_picture_with_a_colour_profile() -> None:
    levels = np.array([0, 60, 128, 255])
    got = middles(save(picture(levels), icc_profile=rgb_profile(P3)))
    np.testing.assert_allclose(got, np.repeat(levels[:, None], 3, 1), atol=2)


def test_cmyk_with_a_profile() -> None:
    ink = np.zeros((16, 48, 4), np.uint8)
    ink[:, 16:32, 3], ink[:, 32:, 3] = 128, 255
    image = Image.frombytes("CMYK", (48, 16), ink.tobytes())
    got = middles(save(image, "TIFF", icc_profile=cmyk_profile()))
    light = 100 * (1 - 128 / 255)  # L*, and so Y = ((L* + 16) / 116)³
    grey = int(encoded(np.array(((light + 16) / 116) ** 3)))
    np.testing.assert_allclose(got, [[255] * 3, [grey] * 3, [0] * 3], atol=3)


BROKEN = {
    "nothing": b"\0",
    "noise": bytes(range(256)) * 4,
    "cut": rgb_profile(P3)[:200],
    "of another kind": cmyk_profile(),
    "grey": grey_profile(1.0),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_profile_means_srgb(kind: str) -> None:
    for format in ("PNG", "TIFF"):
        got = middles(save(picture(COLOURS), format, icc_profile=BROKEN[kind]))
        np.testing.assert_array_equal(got, COLOURS)


# PNG's own words for colours, and its ballast


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """Put chunks after the header of a PNG."""
    return data[:33] + b"".join(chunks) + data[33:]


def gamma_chunk(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))


def primaries_chunk(primaries: tuple[tuple[float, float], ...]) -> bytes:
    values = [round(v * 1e5) for pair in (WHITE, *primaries) for v in pair]
    return chunk(b"cHRM", struct.pack(">8I", *values))


def test_gamma_of_a_png() -> None:
    data = save(picture(COLOURS))
    got = middles(with_chunks(data, gamma_chunk(1.0)))
    np.testing.assert_allclose(got, encoded(COLOURS / 255), atol=1)
    for gamma in (0.45455, 0, 42000):  # the usual one, and nonsense
        np.testing.assert_array_equal(middles(with_chunks(data, gamma_chunk(gamma))), COLOURS)
    srgb = chunk(b"sRGB", b"\0")
    np.testing.assert_array_equal(middles(with_chunks(data, srgb, gamma_chunk(1.0))), COLOURS)


def test_primaries_of_a_png() -> None:
    data = save(picture(in_p3(COLOURS)))
    for more in ((), (gamma_chunk(0.45455),)):
        got = middles(with_chunks(data, *more, primaries_chunk(P3)))
        np.testing.assert_allclose(got, COLOURS, atol=2)
    for nonsense in (((0.0, 0.0),) * 3, ((0.3, 0.3),) * 3, SRGB):
        got = middles(with_chunks(data, primaries_chunk(nonsense)))
        np.testing.assert_array_equal(got, in_p3(COLOURS))
    assert open_image(with_chunks(data, chunk(b"cHRM", bytes(9)))).size == (96, 16)


NOISE = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
BALLAST = {
    "text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
    "noise as text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(NOISE.hex().encode())),
    "international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    "many texts": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000))) * 99,
    "a text that is broken": chunk(b"zTXt", b"Comment\0\0nothing"),
    "a text without end": chunk(b"iTXt", b"Comment"),
    "large EXIF as text": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3_000_000))
    ),
    "profile": chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(3_000_000))),
    "endless profile": chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(200_000_000), 9)),
}


@pytest.mark.parametrize("kind", BALLAST)
def test_what_is_not_needed_is_skipped(kind: str) -> None:
    data = with_chunks(save(picture(COLOURS)), BALLAST[kind])
    np.testing.assert_array_equal(middles(data), COLOURS)


def test_a_large_profile_counts() -> None:
    """3 MB after what it says are allowed in a profile."""
    profile = rgb_profile(P3)
    big = struct.pack(">I", len(profile) + len(NOISE)) + profile[4:] + NOISE
    body = b"P3\0\0" + zlib.compress(big)
    got = middles(with_chunks(save(picture(in_p3(COLOURS))), chunk(b"iCCP", body)))
    np.testing.assert_allclose(got, COLOURS, atol=2)


def test_a_bomb_beside_ballast_is_refused() -> None:
    data = save(Image.new("1", (9000, 9000)))
    with pytest.raises(ImageError, match="9000 x 9000 pixels"):
        open_image(with_chunks(data, BALLAST["text"]))


def test_orientation_in_a_text_of_a_png() -> None:
    """As ImageMagick writes EXIF."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    data = save(picture(COLOURS))
    for name, body in ((b"zTXt", b"\0\0" + zlib.compress(text)), (b"tEXt", b"\0" + text)):
        turned = with_chunks(data, chunk(name, b"Raw profile type exif" + body))
        assert open_image(turned).size == (16, 96)


# Formats


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((".jfif", "JPEG"), (".jpg", "JPEG"), (".jpe", "JPEG"), (".png", "PNG"), (".bmp", "BMP")),
        *((".tif", "TIFF"), (".tiff", "TIFF"), (".gif", "GIF"), (".webp", "WEBP")),
        *((".avif", "AVIF"), (".jp2", "JPEG2000"), (".ppm", "PPM"), (".tga", "TGA")),
    ],
)
def test_suffixes_that_are_read(suffix: str, kind: str) -> None:
    assert suffix in suffixes()
    got = middles(save(picture(COLOURS), kind))
    assert np.abs(got - COLOURS).max() < 60


def test_suffixes_of_what_is_no_photo() -> None:
    assert not {".eps", ".pdf", ".h5", ".txt", ".mpg", ".psd", ".svg", ""} & suffixes()
