"""Which files are images. That training decodes what passes is asserted in test_preprocess.py."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import jpeg

PATCHES = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Patches of colour, which every encoder keeps."""
    return Image.fromarray(PATCHES).resize(size, Image.Resampling.NEAREST).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image) -> bytes:
    """With a note that it is to be turned by a quarter before it is shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, exif=exif, quality=95)


def with_thumbnail(image: Image.Image) -> bytes:
    """With a whole JPEG before its own pixels."""
    data = encoded(image, comment=GOOD, quality=95)
    assert GOOD in data[: data.rindex(b"\xff\xda")]
    return data


def announcing(width: int, height: int) -> bytes:
    """A JPEG whose header says it is of this size."""
    data = bytearray(GOOD)
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


GOOD = encoded(picture(), quality=95)
IMAGES = {
    "RGB": GOOD,
    "grey": encoded(picture("L"), quality=95),
    "CMYK": encoded(picture("CMYK"), quality=95),
    "progressive": encoded(picture(), progressive=True, quality=95),
    "EXIF": turned(picture()),
    "one pixel": encoded(picture(size=(1, 1))),
    "bytes behind its end": GOOD + b"\r\n",
}
SIXTEEN_BIT = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300)
FAULTS = {
    "empty": (b"", "is not a JPEG file"),
    "text": (b"This is not an image.\n", "is not a JPEG file"),
    "signature alone": (b"\xff\xd8\xff", "is not a JPEG file"),
    "signature and text": (b"\xff\xd8\xff\xe0 text\xff\xd9", "is damaged: "),
    "PNG": (encoded(picture(), "PNG"), "is not a JPEG file"),
    "palette": (encoded(picture().quantize(8), "PNG"), "is not a JPEG file"),
    "16 bits": (encoded(SIXTEEN_BIT, "PNG"), "is not a JPEG file"),
    "GIF": (encoded(picture(), "GIF"), "is not a JPEG file"),
    "truncated": (GOOD[:-40], "is truncated: it has no end mark"),
    "truncated in its header": (GOOD[:200], "is damaged: "),
    "without its last byte": (GOOD[:-1], "is truncated: it has no end mark"),
    "truncated, then zeros": (GOOD[:-40] + bytes(40), "is truncated: it has no end mark"),
    "truncated behind its thumbnail": (with_thumbnail(picture())[:-40], "is truncated: it has no end mark"),
    "no pixels": (announcing(0, 0), "is not a JPEG file"),
    "large": (announcing(20_000, 20_000), "has more than 67,108,864 pixels"),
    "rather large": (announcing(10_000, 10_000), "has 10000 x 10000 pixels, more than 67,108,864"),
}


@pytest.mark.parametrize("decode", [False, True])
def test_images_of_every_kind_are_good(decode: bool) -> None:
    assert {name: jpeg.fault(data, decode) for name, data in IMAGES.items()} == dict.fromkeys(IMAGES, "")


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("error")
def test_what_is_no_image_is_told(name: str, decode: bool) -> None:
    data, message = FAULTS[name]
    found = jpeg.fault(data, decode)
    assert message in found
    assert found.isprintable()


def test_damage_within_is_found_by_decoding() -> None:
    data = bytearray(GOOD)
    data[data.index(b"\xff\xc4") + 6] ^= 0xFF  # of a Huffman table
    assert "is damaged: " in jpeg.fault(bytes(data), decode=True)
