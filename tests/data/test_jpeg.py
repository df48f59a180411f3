"""The check of JPEG files. test_preprocess.py tests that TensorFlow decodes the files that pass it."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from stages.data import jpeg
from stages.runtime.errors import UserError

PATCHES = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def make_image(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Patches of color, which every encoder keeps."""
    return Image.fromarray(PATCHES).resize(size, Image.Resampling.NEAREST).convert(mode)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(image: Image.Image) -> bytes:
    """With an EXIF orientation of a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image, exif=exif, quality=95)


def with_thumbnail(image: Image.Image) -> bytes:
    """With a whole JPEG file in a comment before its pixels."""
    data = encode(image, comment=GOOD, quality=95)
    assert GOOD in data[: data.rindex(b"\xff\xda")]
    return data


def with_header_size(width: int, height: int) -> bytes:
    """A JPEG file whose header announces this size."""
    data = bytearray(GOOD)
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


GOOD = encode(make_image(), quality=95)
VALID = {
    "RGB": GOOD,
    "grayscale": encode(make_image("L"), quality=95),
    "CMYK": encode(make_image("CMYK"), quality=95),
    "progressive": encode(make_image(), progressive=True, quality=95),
    "EXIF": rotated(make_image()),
    "one pixel": encode(make_image(size=(1, 1))),
    "bytes after its end": GOOD + b"\r\n",
}
SIXTEEN_BIT = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300)
INVALID = {
    "empty": (b"", "is not a JPEG file"),
    "text": (b"This is not an image.\n", "is not a JPEG file"),
    "only a signature": (b"\xff\xd8\xff", "is not a JPEG file"),
    "signature and text": (b"\xff\xd8\xff\xe0 text\xff\xd9", "is corrupt: "),
    "PNG": (encode(make_image(), "PNG"), "is not a JPEG file"),
    "palette": (encode(make_image().quantize(8), "PNG"), "is not a JPEG file"),
    "16 bits": (encode(SIXTEEN_BIT, "PNG"), "is not a JPEG file"),
    "GIF": (encode(make_image(), "GIF"), "is not a JPEG file"),
    "truncated": (GOOD[:-40], "is truncated: it has no end mark"),
    "truncated in its header": (GOOD[:200], "is corrupt: "),
    "without its last byte": (GOOD[:-1], "is truncated: it has no end mark"),
    "truncated, then zeros": (GOOD[:-40] + bytes(40), "is truncated: it has no end mark"),
    "truncated after its thumbnail": (with_thumbnail(make_image())[:-40], "is truncated: it has no end mark"),
    "no pixels": (with_header_size(0, 0), "is not a JPEG file"),
    "large": (with_header_size(20_000, 20_000), "has more than 67,108,864 pixels"),
    "rather large": (with_header_size(10_000, 10_000), "has 10000 x 10000 pixels, more than 67,108,864"),
}


@pytest.mark.parametrize("decode", [False, True])
def test_valid_image_of_any_kind_has_no_error(decode: bool) -> None:
    assert {name: jpeg.find_error(data, decode) for name, data in VALID.items()} == dict.fromkeys(VALID, "")


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", INVALID)
@pytest.mark.filterwarnings("error")
def test_invalid_image_has_a_printable_error(name: str, decode: bool) -> None:
    data, message = INVALID[name]
    found = jpeg.find_error(data, decode)
    assert message in found
    assert found.isprintable()


def test_corrupt_pixels_are_found_by_decoding() -> None:
    data = bytearray(GOOD)
    data[data.index(b"\xff\xc4") + 6] ^= 0xFF  # of a Huffman table
    assert "is corrupt: " in jpeg.find_error(bytes(data), decode=True)


def test_lack_of_memory_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(JpegImageFile, "load", fail)
    with pytest.raises(UserError, match="too little memory"):
        jpeg.find_error(GOOD, decode=True)
