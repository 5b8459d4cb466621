"""Pictures of every kind that people bring, broken ones too, and files read back by others."""

import io
import json
import random
import struct
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, TiffImagePlugin

from ddpm_demo.media import open as opening
from ddpm_demo.media.convert import cut, grid, square, strip, to_tensor, to_uint8
from ddpm_demo.media.encode import KINDS, encode, write
from ddpm_demo.media.open import ImageError, open_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
META = {"title": "Chain", "seed": "7", "prompt": "café, 1 → 0"}


def photo(width: int = 48, height: int = 32) -> np.ndarray:
    """A smooth picture (H, W, 3) without symmetries."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = (255 * x / width, 255 * y / height, 255 - 120 * x / width - 120 * y / height)
    return np.stack(rgb, axis=-1).astype(np.uint8)


def save(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: object) -> np.ndarray:
    image = open_image(source)
    assert image.mode == "RGB"
    return np.array(image).astype(int)


def film(n: int = 12, size: int = 32, channels: int = 3) -> list[np.ndarray]:
    """Noise that turns into a picture."""
    rng = np.random.default_rng(0)
    end = photo(size, size)[..., :channels]
    mix = np.linspace(0, 1, n)[:, None, None, None]
    frames = mix * end + (1 - mix) * rng.integers(0, 256, (n, size, size, channels))
    return list(np.broadcast_to(frames.round().astype(np.uint8), (n, size, size, 3)))


# Tensors


def test_every_level_survives_the_round_trip() -> None:
    levels = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)[None].repeat(2, 0)
    x = to_tensor(levels)
    assert (x.shape, x.dtype) == ((2, 3, 16, 16), torch.float32)
    assert x.is_contiguous()
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(x), levels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_uint8_rounds_and_clamps(dtype: torch.dtype) -> None:
    x = torch.tensor([-9, -1, -0.499, 0.25, 1, 9], dtype=dtype, requires_grad=True)
    want = [0, 0, 64, 159, 255, 255]
    assert to_uint8(x.reshape(1, 1, 1, 6)).ravel().tolist() == want
    third = torch.tensor([[[[1 / 127.5 * 0.6 - 1]]]], dtype=torch.float64)
    assert to_uint8(third).item() == 1  # truncation would give 0


# Files


@pytest.mark.parametrize(
    "kind",
    ["PNG", "BMP", "DIB", "TIFF", "PPM", "TGA", "PCX", "SGI", "ICO", "IM", "DDS", "WEBP"],
)
def test_lossless_formats_are_exact(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = photo(32, 32)
    if kind == "ICO":
        options = {"sizes": [(32, 32)]}
    np.testing.assert_array_equal(pixels(save(picture, kind, **options)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "WEBP", "JPEG2000", "GIF"])
def test_lossy_formats_are_close(kind: str) -> None:
    assert np.abs(pixels(save(photo(), kind)) - photo()).mean() < 6


def test_sources() -> None:
    data = save(photo(), "PNG")
    for source in (data, io.BytesIO(data), Image.fromarray(photo())):
        np.testing.assert_array_equal(pixels(source), photo())


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = tmp_path / "ünï.dat"
    path.write_bytes(save(photo(), "PNG"))
    np.testing.assert_array_equal(pixels(path), photo())
    np.testing.assert_array_equal(pixels(str(path)), photo())


def test_a_given_picture_is_not_changed() -> None:
    given = Image.fromarray(photo())
    open_image(given).putpixel((0, 0), (1, 2, 3))
    assert given.getpixel((0, 0)) == tuple(photo()[0, 0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    upright = photo()
    stored = {  # as a camera held that way stores it
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(np.ascontiguousarray(stored), kind, exif=exif)
    got = open_image(data)
    assert got.size == (48, 32)
    assert np.abs(np.array(got).astype(int) - upright).mean() < 6
    assert not got.info
    assert not got.getexif()


def test_damaged_exif_does_not_spoil_the_picture() -> None:
    head = b"Exif\0\0II*\0\x08\0\0\0\x02\0"
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)
    text_for_a_number = struct.pack("<HHI4s", 0x0128, 2, 4, b"abc")
    exif = head + turned + text_for_a_number + bytes(4)
    data = save(np.rot90(photo()).copy(), "JPEG", exif=exif, quality=95)
    assert np.abs(pixels(data) - photo()).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    image = Image.new("LA", (3, 1), (100, 255))
    image.putpixel((1, 0), (100, 0))
    image.putpixel((2, 0), (100, 51))
    image = image.convert(mode)
    if mode == "PA":  # the conversion drops alpha
        image.putalpha(Image.fromarray(np.array([[255, 0, 51]], np.uint8)))
    got = pixels(image if mode == "PA" else save(image, "PNG"))
    np.testing.assert_allclose(got[0, :, 0], [100, 255, 224], atol=1)


def test_transparent_palettes_and_colour_keys() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 20, 30, 40, 250])
    palette.putpixel((1, 0), 1)
    want = [[[255, 255, 255], [30, 40, 250]]]
    assert pixels(save(palette, "PNG", transparency=0)).tolist() == want
    assert pixels(save(palette, "GIF", transparency=0)).tolist() == want
    assert pixels(save(palette, "PNG")).tolist() == [[[200, 10, 20], [30, 40, 250]]]
    half = pixels(save(palette, "PNG", transparency=bytes([128, 255])))
    np.testing.assert_allclose(half[0], [[227, 132, 137], want[0][1]], atol=1)
    keyed = save(palette.convert("RGB"), "PNG", transparency=(200, 10, 20))
    assert pixels(keyed).tolist() == want
    assert pixels(save(Image.new("L", (1, 1), 9), "PNG", transparency=9)).max() == 255
    assert pixels(save(Image.new("1", (1, 1), 0), "PNG", transparency=0)).min() == 255


def test_grey_and_one_bit() -> None:
    assert (pixels(save(RAMP, "PNG")) == RAMP[..., None]).all()
    bits = RAMP % 3 > 0
    for kind in ("PNG", "TIFF", "XBM", "MSP"):
        image = Image.fromarray(bits).convert("1")
        assert (pixels(save(image, kind)) == 255 * bits[..., None]).all(), kind


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_other_colours(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    assert np.abs(pixels(image) - photo()).mean() < 3
    if mode == "CMYK":
        for kind in ("TIFF", "JPEG"):
            assert np.abs(pixels(save(image, kind)) - photo()).mean() < 6, kind


def grey_file(kind: str, values: np.ndarray) -> bytes:
    """Values (H, W) in a format with more than 8 bits."""
    h, w = values.shape
    if kind in ("PNG", "TIFF"):
        return save(values.astype(np.uint16), kind)
    if kind == "big-endian TIFF":
        tags = {256: w, 257: h, 258: 16, 259: 1, 262: 1, 273: 0, 277: 1, 278: h, 279: 2 * h * w}
        directory = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\x08")
        for tag, value in tags.items():
            directory[tag] = value
        return b"MM\0*\0\0\0\x08" + directory.tobytes(8) + values.astype(">u2").tobytes()
    if kind == "PGM":
        return f"P5 {w} {h} 65535\n".encode() + values.astype(">u2").tobytes()
    return save(values.astype({"int32 TIFF": np.int32, "float TIFF": np.float32}[kind]), "TIFF")


@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "big-endian TIFF", "PGM", "int32 TIFF", "float TIFF"]
)
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 4096).round().reshape(64, 64)
    got = pixels(grey_file(kind, values))
    assert (got == got[..., :1]).all()
    levels = got[..., 0].ravel()
    np.testing.assert_allclose(levels, values.ravel() / 257, atol=1)
    assert (np.diff(levels) >= 0).all()
    assert len(set(levels)) == 256


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0, 1, (0, 255)),
        (0, 200, (0, 200)),
        (-1, 1, (0, 255)),
        (0, 1e38, (0, 255)),
        (-5, -5, (0, 0)),
    ],
)
def test_floats_of_any_range(low: float, high: float, want: tuple[int, int]) -> None:
    values = np.linspace(low, high, 256).reshape(16, 16).astype(np.float32)
    got = pixels(save(values, "TIFF"))
    assert (got.min(), got.max()) == want
    assert (np.diff(got[..., 0].ravel()) >= 0).all()
    values[0, :2] = np.nan, np.inf
    pixels(save(values, "TIFF"))


def test_sixteen_bit_darkness_stays_dark() -> None:
    assert pixels(save(np.full((4, 4), 2570, np.uint16), "PNG")).max() == 10


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), name) for name in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(red, kind, save_all=True, append_images=[blue], **options)
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


def test_photographs_are_decoded_at_a_fraction() -> None:
    data = save(photo(1600, 800), "JPEG")
    small = open_image(data, at_least=64)
    assert small.size == (400, 200)
    assert open_image(data).size == (1600, 800)
    assert open_image(save(photo(1600, 800), "PNG"), at_least=64).size == (1600, 800)
    assert open_image(save(photo(20, 10), "JPEG"), at_least=64).size == (20, 10)
    near = np.abs(np.array(square(small, 64)).astype(int) - square(open_image(data), 64))
    assert near.max() < 8


# Files that are refused


def refusal(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(("side", "bits"), [(30_000, 8), (10_000, 8), (8_100, 1)])
def test_a_bomb_is_refused_from_its_header(
    side: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0))
    rows = zlib.compress(bytes(10_000))
    data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    start = time.perf_counter()
    assert "64,000,000" in refusal(data)
    assert time.perf_counter() - start < 0.5


def test_a_picture_just_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PIXELS", 48 * 32)
    assert open_image(save(photo(), "PNG")).size == (48, 32)
    assert "49 x 32" in refusal(save(photo(49), "PNG"))
    assert "49 x 32" in refusal(Image.fromarray(photo(49)))


def test_size_limit_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(photo(), "PNG")
    monkeypatch.setattr(opening, "MAX_BYTES", len(data))
    open_image(io.BytesIO(data))
    assert "larger than" in refusal(data + b"\0")
    path = tmp_path / "large.png"
    path.write_bytes(data + b"\0")
    assert "'large.png' is larger than" in refusal(path)
    assert "larger than" in refusal(io.BytesIO(data + b"\0"))


def test_what_is_not_a_picture(tmp_path: Path) -> None:
    assert "empty" in refusal(b"")
    assert "not a picture" in refusal(b"hello, world")
    assert "SVG" in refusal(b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert "HEIC" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    assert "PostScript" in refusal(save(photo(), "EPS"))
    assert "No such file" in refusal(tmp_path / "none.png")
    assert "'none.png'" in refusal(str(tmp_path / "none.png"))
    assert "directory" in refusal(tmp_path)
    refusal("nul\0byte.png")
    refusal(str(tmp_path / ("x" * 999)))


def test_errors_keep_their_cause() -> None:
    with pytest.raises(ImageError) as caught:
        open_image(save(photo(), "PNG")[:60])
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_truncated(kind: str) -> None:
    data = save(photo(), kind)
    for part in (0.02, 0.1, 0.3, 0.5, 0.8):
        message = refusal(data[: int(part * len(data))])
        assert "damaged" in message or "not a picture" in message


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "ICO", "TGA", "PCX"]
)
@pytest.mark.filterwarnings("ignore")  # as in the running program; an error would hide the rest
def test_flipped_bits_give_a_picture_or_an_image_error(kind: str) -> None:
    random.seed(kind)
    exif = {"exif": Image.Exif()} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    for value in exif.values():
        value[0x0112] = 6
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    clean = save(photo(), kind, **exif, **options)
    opened = 0
    for _ in range(30):
        data = bytearray(clean)
        for _ in range(random.randint(1, 4)):
            place = random.randrange(min(len(data), random.choice([40, len(data)])))
            data[place] ^= 1 << random.randrange(8)
        try:
            assert open_image(bytes(data)).mode == "RGB"
            opened += 1
        except ImageError:
            pass
    assert opened < 30


# Layout


def test_square_keeps_the_centre() -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 200
    for array in (picture, picture.transpose(1, 0, 2)):
        got = np.array(square(Image.fromarray(array), 20))
        assert got.shape == (20, 20, 3)
        np.testing.assert_allclose(got, 200, atol=12)  # at the edges the filter sees beyond
        np.testing.assert_allclose(got[3:-3, 3:-3], 200, atol=2)
    assert square(Image.new("RGB", (1, 1000)), 32).size == (32, 32)


def test_square_averages() -> None:
    fine = np.indices((512, 512)).sum(0) % 2 * 255  # the nearest pixel would be 0 or 255
    image = Image.fromarray(fine.astype(np.uint8)).convert("RGB")
    assert np.abs(np.array(square(image, 32)).astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("n", "columns", "pad", "scale"), [(16, None, 1, 4), (5, 2, 0, 1)])
def test_a_grid_can_be_cut_again(n: int, columns: int | None, pad: int, scale: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (n, 3, 7, 3), dtype=np.uint8)
    sheet = grid(pictures, columns, pad, scale)
    np.testing.assert_array_equal(cut(sheet, n, columns, pad, scale), pictures)


def test_grid() -> None:
    tiles = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 4, 1), np.uint8)
    sheet = grid(tiles)
    assert sheet.shape == (2 * 2 + 1, 3 * 4 + 2, 3)
    assert sheet[0, :, 0].tolist() == [1] * 4 + [255] + [2] * 4 + [255] + [3] * 4
    assert sheet[4, :, 2].tolist() == [4] * 4 + [255] + [5] * 4 + [255] * 5
    assert (sheet[2] == 255).all()
    big = grid(tiles, scale=3)
    assert big.shape == (15, 42, 3)
    np.testing.assert_array_equal(big[1::3, 1::3], sheet)
    assert grid(tiles, columns=5, pad=0).shape == (2, 20, 3)
    np.testing.assert_array_equal(grid(photo()[None]), photo())
    for shape in [(0, 2, 2, 3), (2, 2, 3), (1, 2, 2, 4)]:
        with pytest.raises(ValueError, match="images must be"):
            grid(np.zeros(shape, np.uint8))


def test_strip() -> None:
    frames = film(3)
    page = strip(frames, scale=2)
    assert page.shape == (64, 3 * 64 + 2 * 4, 3)
    np.testing.assert_array_equal(page[::2, 68:132:2], frames[1])
    labelled = strip(frames, ["t = 999", "", "t = 0"], scale=2)
    np.testing.assert_array_equal(labelled[:64], page)
    footer = labelled[64:].min(axis=(0, 2))
    assert [footer[x : x + 64].min() < 100 for x in (0, 68, 136)] == [True, False, True]
    assert strip(frames, ["a very long label"] * 3).shape[1] > 3 * 32 + 8
    with pytest.raises(ValueError, match="shorter"):
        strip(frames, ["one"])


# Encoding


def test_png_keeps_pixels_and_metadata() -> None:
    data = encode([photo()], "png", metadata=META)
    np.testing.assert_array_equal(pixels(data), photo())
    assert Image.open(io.BytesIO(data)).text == META


def gif_frames(data: bytes) -> tuple[np.ndarray, list[int]]:
    """What a reader sees, (N, H, W, 3), and how long, in ms."""
    frames = iio.imread(data, index=None, mode="RGB")
    with iio.imopen(data, "r") as file:
        return frames, [file.metadata(index=i)["duration"] for i in range(len(frames))]


def test_grey_gif_is_exact() -> None:
    frames = film(channels=1)
    frames[5] = frames[5].copy()
    frames[5][:16, :16] = RAMP[..., None]
    data = encode(frames, "gif", fps=15, hold=2, metadata=META)
    got, durations = gif_frames(data)
    np.testing.assert_array_equal(got, frames)
    assert set(durations[:-1]) == {60, 70}
    assert [sum(durations[:i]) for i in (1, 2, 3, 9)] == [70, 130, 200, 600]
    assert durations[-1] == 2000
    tags = iio.immeta(data)
    assert json.loads(tags["comment"]) == META
    assert tags["loop"] == 0


def test_colour_gif_is_close_and_shares_one_palette() -> None:
    frames = film()
    data = encode(frames, "gif", fps=100, hold=0)
    got, durations = gif_frames(data)
    assert len(got) == 12
    assert set(durations) == {20}  # browsers slow anything faster down to 100
    error = np.abs(got.astype(int) - frames).mean(axis=(1, 2, 3))
    assert error[0] < 20
    assert error[-1] < 5
    assert "comment" not in iio.immeta(data)
    colours = np.unique(got.reshape(-1, 3), axis=0)
    assert len(colours) <= 256


def test_gif_of_one_frame() -> None:
    got, durations = gif_frames(encode(film(1, channels=1), "gif"))
    assert len(got) == 1
    assert durations == [1500]


@pytest.mark.parametrize("shape", [(32, 32), (33, 17), (601, 515)])
def test_mp4_plays_back(shape: tuple[int, int]) -> None:
    height, width = shape
    frames = [photo(width, height), 255 - photo(width, height), photo(width, height)]
    data = encode(frames, "mp4", fps=12.5, hold=0.4, metadata=META)
    with av.open(io.BytesIO(data)) as container:
        assert json.loads(container.metadata["comment"]) == META
        assert container.metadata["title"] == "Chain"
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(25, 2)
        assert stream.width % 2 == stream.height % 2 == 0
    assert data.index(b"moov") < data.index(b"mdat")
    got = iio.imread(data, extension=".mp4", plugin="pyav")
    assert len(got) == 2 + 5
    scale = 1 if height > 512 else got.shape[2] // width
    assert scale == 1 or min(got.shape[1:3]) >= 256
    for i, frame in enumerate([*frames, *frames[-1:] * 4]):
        seen = got[i][: scale * height : scale, : scale * width : scale].astype(int)
        assert np.abs(seen - frame).mean() < 3, i
    right = got[0][:, -4:].astype(int)
    assert np.abs(right[:, -1] - right[:, 0]).mean() < 20  # padding repeats the edge


def test_mp4_keeps_the_colours_of_single_pixels() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (32, 32, 3), np.uint8)
    got = iio.imread(encode([frame], "mp4", hold=0), extension=".mp4", plugin="pyav")
    assert got.shape == (1, 512, 512, 3)
    assert np.abs(got[0, 8::16, 8::16].astype(int) - frame).mean() < 8


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_encoded(kind: str) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\), got \[\]"):
        encode([], kind)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        encode([photo()[..., 0]], kind)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        encode([photo(), photo(16)], kind)
    with pytest.raises(ValueError, match="Fps"):
        encode([photo()], kind, fps=0)


def test_unknown_kinds() -> None:
    with pytest.raises(ValueError, match="Kind must be png, gif or mp4, not 'avi'"):
        encode(film(), "avi")
    with pytest.raises(ValueError, match="one frame, got 12"):
        encode(film(), "png")


@pytest.mark.parametrize("name", ["chain.GIF", "chain.mp4", "last.png"])
def test_write(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    frames = film(1)
    write(path, frames, fps=10, metadata=META)
    kind = path.suffix[1:].lower()
    assert path.read_bytes() == encode(frames, kind, fps=10, metadata=META)
    assert list(tmp_path.iterdir()) == [path]


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.gif, \.mp4"):
        write(tmp_path / "chain.avi", film())
    with pytest.raises(ValueError, match="does not exist"):
        write(tmp_path / "none" / "chain.gif", film())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "last.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"last\.png was not written: No space left on device"):
        write(path, film(1))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Limits of the formats


def test_a_frame_of_a_gif_has_a_longest_time() -> None:
    """Times are hundredths of a second in 16 bits, and equal frames become one."""
    frame = photo(2, 2)
    for n, hold in ((700, 0), (1, 600)):
        _, durations = gif_frames(encode([frame] * n, "gif", fps=5, hold=hold))
        assert sum(durations) == max(200 * n, 1000 * hold)
    for n, fps, hold in ((1400, 2, 0), (2, 0.01, 600), (7, 0.01, 0)):
        with pytest.raises(ValueError, match=r"last at most 655\.35 seconds, got 700\.0"):
            encode([frame] * n, "gif", fps=fps, hold=hold)
    changing = [frame, 255 - frame] * 4  # 800 s, but no frame is long
    assert sum(gif_frames(encode(changing, "gif", fps=0.01, hold=0))[1]) == 800_000


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_sides_that_a_film_cannot_have(kind: str) -> None:
    for shape in ((1, 65_536, 3), (65_536, 1, 3)):
        with pytest.raises(ValueError, match=r"Size of an? .* must be at most .*, not"):
            encode([np.zeros(shape, np.uint8)], kind)


def test_the_longest_sides_that_a_film_can_have() -> None:
    got, _ = gif_frames(encode([np.zeros((1, 65_535, 3), np.uint8)], "gif"))
    assert got.shape[1:] == (1, 65_535, 3)
    data = encode([np.full((2, 16_384, 3), 90, np.uint8)], "mp4", hold=0)
    assert iio.imread(data, extension=".mp4", plugin="pyav").shape == (1, 2, 16_384, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"fps": float("nan")}, {"fps": 1e9}, {"fps": 1e-9}, {"hold": -1}, {"hold": 1e9}]
)
def test_times_that_no_film_has(kind: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(Fps|Hold) must be"):
        encode([photo()], kind, **options)


@pytest.mark.parametrize("key", ["", "x" * 80, "ключ", "a\nb", " a"])
def test_names_of_texts_that_a_png_cannot_hold(key: str) -> None:
    with pytest.raises(ValueError, match="Name of a text in a PNG must be "):
        encode([photo()], "png", metadata={key: "x"})
    assert encode([photo()], "gif", metadata={key: "x"})


def test_long_texts() -> None:
    """Ours are read by us, and by Pillow; a NUL would end them."""
    text = "café " * 100_000
    assert Image.open(io.BytesIO(encode([photo()], "png", metadata={"a": text}))).text["a"] == text
    assert json.loads(iio.immeta(encode([photo()], "gif", metadata={"a": text}))["comment"])
    with pytest.raises(ValueError, match="text without NUL"):
        encode([photo()], "png", metadata={"a": "b\0c"})


@pytest.mark.parametrize("colours", [1, 2, 300])
def test_a_gif_of_few_colours_is_exact_and_quick(colours: int) -> None:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colours, 3), np.uint8)
    frames = [palette[rng.integers(0, colours, (24, 24))] for _ in range(20)]
    start = time.perf_counter()
    got, _ = gif_frames(encode(frames, "gif"))
    assert time.perf_counter() - start < 5  # equal colours in the palette would take 10
    assert np.abs(got[-1].astype(int) - frames[-1]).mean() < (1e-9 if colours == 1 else 20)


def test_frames_are_bytes() -> None:
    with pytest.raises(ValueError, match=r"Type of frames must be uint8"):
        encode([photo().astype(float)], "gif")
    with pytest.raises(ValueError, match=r"one shape \(H, W, 3\)"):
        encode([np.zeros((0, 4, 3), np.uint8)], "gif")


def test_the_shipped_examples() -> None:
    folder = Path(opening.__file__).parents[1] / "examples"
    credits = (folder / "README.md").read_text()
    paths = sorted(folder.glob("*.jpg"))
    assert len(paths) >= 5
    for path in paths:
        assert open_image(path).size == (384, 384)
        assert path.stat().st_size < 80_000
        assert f"`{path.name}`" in credits
