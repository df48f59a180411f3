"""Files of any common format become the pixels that a person sees, or one short reason why not."""

import resource
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.data.convert import HAS_HEIF, convert, is_upright
from tests.conftest import ROOT, run
from tests.data.test_jpeg import PATCHES, encode, make_image, rotated

GRAY = PATCHES[..., :1]
UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
# How the pixels of UPRIGHT lie in a file with each EXIF orientation
LYING = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """A PNG file of rows that start with their filter, which may be fewer than its header says."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits: int, white_is_zero: bool, pixels: bytes, width: int, order: str = "<") -> bytes:
    """A TIFF file of one row of grays."""
    values = {256: width, 257: 1, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 122, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in values.items())
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(values)) + entries + bytes(4) + pixels


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(frame) for frame in (PATCHES, 255 - PATCHES)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize(
    ("data", "expected", "conversions"),
    [
        (encode(Image.fromarray(PATCHES), "PNG"), PATCHES, []),
        (encode(Image.fromarray(PATCHES), "BMP"), PATCHES, []),
        (encode(Image.fromarray(PATCHES), "WEBP", lossless=True), PATCHES, []),
        (encode(Image.fromarray(PATCHES), "GIF"), PATCHES, ["palette"]),
        (encode(Image.fromarray(PATCHES).quantize(24), "PNG"), PATCHES, ["palette"]),
        (encode(Image.fromarray(GRAY[..., 0]), "PNG"), GRAY, []),
        (encode(Image.fromarray(GRAY[..., 0] > 99), "PNG"), 255 * (GRAY > 99), []),
        (encode(Image.fromarray(PATCHES), "TIFF"), PATCHES, []),
        (encode(Image.fromarray(PATCHES), "TIFF", compression="tiff_deflate"), PATCHES, []),
        (encode(Image.fromarray(GRAY[..., 0].astype(np.uint16) << 8 | 9), "TIFF"), GRAY, ["16 bits"]),
        (encode(Image.fromarray(PATCHES).convert("CMYK"), "TIFF"), PATCHES, ["CMYK"]),
        (encode(Image.fromarray(GRAY[..., 0]), "AVIF", quality=100), GRAY, []),
        (animated("TIFF"), PATCHES, ["pages"]),
        (animated("GIF"), PATCHES, ["animation", "palette"]),
        (animated("WEBP"), PATCHES, ["animation"]),
        (animated("PNG"), PATCHES, ["animation"]),
    ],
)
def test_lossless_formats_keep_their_pixels(data: bytes, expected: np.ndarray, conversions: list[str]) -> None:
    pixels, applied = convert(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    assert applied == conversions


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_files_are_decoded_in_any_colors(mode: str) -> None:
    pixels, applied = convert(encode(make_image(mode), quality=95))
    assert pixels.shape == (32, 48, 1 if mode == "L" else 3)
    assert (
        np.abs(pixels - np.asarray(make_image("L" if mode == "L" else "RGB")).reshape(pixels.shape).astype(int)).mean()
        < 9
    )
    assert applied == []


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", LYING)
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, applied = convert(encode(Image.fromarray(np.ascontiguousarray(LYING[orientation])), kind, exif=exif))
    np.testing.assert_array_equal(pixels[..., 0], UPRIGHT)
    assert applied == (["EXIF orientation"] if orientation > 1 else [])


def test_only_jpeg_files_that_exif_data_turn_are_not_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    assert is_upright(encode(make_image()))
    assert is_upright(encode(make_image(), exif=exif))
    assert is_upright(encode(make_image(), exif=b"Exif\0\0garbage"))
    assert not is_upright(rotated(make_image()))
    assert not is_upright(rotated(Image.new("L", (60_000, 3_000))), 10**9)  # larger than Pillow opens by itself


def test_16_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 255, 256, 1000, 65535]], np.uint16)
    gray = png(5, 1, 16, 0, b"\0" + values.astype(">u2").tobytes())
    color = png(5, 1, 16, 2, b"\0" + np.repeat(values, 3).astype(">u2").tobytes())
    for data, channels in ((gray, 1), (color, 3)):
        pixels, applied = convert(data)
        np.testing.assert_array_equal(pixels, np.repeat([[[0], [0], [1], [3], [255]]], channels, axis=2))
        assert applied == ["16 bits"]


@pytest.mark.parametrize(
    ("data", "expected", "applied"),
    [
        (tiff(12, False, bytes.fromhex("00000f 0103e8 800fff"), 6), [0, 0, 1, 62, 128, 255], ["16 bits"]),
        (tiff(16, False, struct.pack("<3H", 255, 1000, 65535), 3), [0, 3, 255], ["16 bits"]),
        (tiff(16, False, struct.pack(">3H", 255, 1000, 65535), 3, ">"), [0, 3, 255], ["16 bits"]),
        (tiff(16, True, struct.pack("<3H", 255, 1000, 65535), 3), [255, 252, 0], ["16 bits"]),
        (tiff(8, True, bytes([0, 3, 255]), 3), [255, 252, 0], []),
    ],
)
def test_grays_of_tiff_span_black_to_white_whatever_their_bits(
    data: bytes, expected: list[int], applied: list[str]
) -> None:
    pixels, conversions = convert(data)
    assert (pixels[0, :, 0].tolist(), pixels.shape[0], conversions) == (expected, 1, applied)


def test_transparent_pixels_lie_on_white() -> None:
    alpha = Image.fromarray(np.array([[0, 255], [51, 255]], np.uint8))
    black = Image.new("RGB", (2, 2))
    black.putalpha(alpha)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels, applied = convert(encode(black, kind, **options))
        np.testing.assert_array_equal(pixels, np.repeat([[[255], [0]], [[204], [0]]], 3, axis=2))
        assert applied == ["transparency"]
    gray = Image.new("L", (2, 2))
    gray.putalpha(alpha)
    np.testing.assert_array_equal(convert(encode(gray, "PNG"))[0][..., 0], [[255, 0], [204, 0]])
    keyed = Image.fromarray(np.array([[0, 1]], np.uint8))
    keyed.putpalette([10, 20, 30, 40, 50, 60])
    for kind in ("PNG", "GIF"):
        pixels, applied = convert(encode(keyed, kind, transparency=1))
        np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255]]])
        assert applied == ["palette", "transparency"]
    opaque = Image.fromarray(PATCHES)
    opaque.putalpha(255)
    assert convert(encode(opaque, "PNG"))[1] == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"),
        (b"text" * 99, "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"),
        (b"II*\0" + b"x" * 99, "is a TIFF file of a kind that cannot be read; convert it to PNG"),
        (b"\0\0\0\x1cftypheic" + bytes(99), "is corrupt" if HAS_HEIF else "is a HEIC file: install pillow-heif .*"),
        (encode(make_image("F"), "TIFF"), "is corrupt: values of Pillow's mode F have no usual range; save it with .*"),
        *((encode(make_image(), kind)[:-60], "is truncated") for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")),
        (png(9000, 9000, 8, 2, bytes(1000)), "has 9,000 x 9,000 pixels, more than 67,108,864"),
        (png(60_000, 60_000, 8, 2, bytes(1000)), "has more than 67,108,864 pixels"),
        (png(2**31 - 1, 2**31 - 1, 16, 6, bytes(1000)), "has more than 67,108,864 pixels"),
        (
            b"GIF89a" + struct.pack("<HH", 65535, 65535) + encode(make_image(), "GIF")[10:],
            "has more than 67,108,864 pixels",
        ),
    ],
)
def test_invalid_file_is_one_short_reason_in_little_memory(data: bytes, reason: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"^{reason}$"):
        convert(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB on Linux, bytes on macOS


MEASURE = """
import resource
from pathlib import Path
from stages.data.folders.converted import convert_all

def convert():
    for content, _ in convert_all([("a.png", Path("a.png").read_bytes)], 99_000_000):
        assert content.shape == (4000, 2500, 3) and not content.error, content

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
try:
    convert()
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
before = peak()
convert()
print((peak() - before) / 10_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits and counts the memory of a process like this")
def test_decoding_takes_little_memory_and_a_lack_of_it_is_no_fault_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGBA", (4000, 2500), (9, 99, 199, 99))
    (tmp_path / "a.png").write_bytes(encode(image, "PNG", compress_level=1, exif=exif))
    done = run(tmp_path, sys.executable, "-c", MEASURE, PYTHONPATH=str(ROOT))
    error, took = done.stdout.splitlines()
    assert error.startswith("UserError too little memory to decode an image, which may have 99,000,000 pixels; ")
    assert float(took) < 10
