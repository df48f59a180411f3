"""Decode any common image file to the 8-bit pixels that a person sees, and to those that training sees."""

import functools
import io
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.data import jpeg
from stages.data.jpeg import MAX_PIXELS
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

HAS_HEIF = find_spec("pillow_heif") is not None  # optional: its codecs have licences of their own
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", *(["HEIF"] if HAS_HEIF else [])]
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(HEIF_SUFFIXES if HAS_HEIF else ()),
)
INSTALL_HEIF = "install pillow-heif (.venv/bin/pip install pillow-heif) or convert to JPEG"
JPEG = b"\xff\xd8"
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SEVERAL = {"PNG": "animation", "WEBP": "animation", "GIF": "animation", "TIFF": "pages"}  # formats of several images
WIDE = "I;16"  # Pillow's modes of 16 bits begin so; PNG files with colors or transparency have 8 bits already
GRAYSCALE = ["1", "L", "LA"]
DEEP = ["F", "I", "I;16S", "I;16BS"]  # Pillow's modes whose values have no usual range
PNG_DEPTH = 24  # position of the bit depth in a PNG file
BITS, INTERPRETATION, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value of the second
STRIP = 1 << 20  # pixels that are converted at once: each step copies them
ORIENTATION = 0x0112  # tag of EXIF
# How the pixels of a file lie, as a view of the upright ones
LYING: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda upright: upright[::-1, ::-1],
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def is_image(name: str) -> bool:
    """Whether a file has the suffix of an image that can be read."""
    return name.lower().endswith(SUFFIXES)


def decode(data: bytes, channels: int, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, list[str]]:
    """Decode an image file to the pixels that training and evaluation see, to the bit. Imports TensorFlow.

    TensorFlow decodes a JPEG file, as where the records are read, unless EXIF data turn it; `convert` decodes any other
    file, as where the records are written.

    Args:
        data: the file.
        channels: 3, or 1 for grayscale.
        max_pixels: that an image may have.

    Returns:
        uint8 (height, width, channels), and what `convert` applied.

    Raises:
        ValueError: the file is invalid; the message continues "the file …".
    """
    if data.startswith(JPEG):
        if error := jpeg.find_error(data, max_pixels=max_pixels):
            raise ValueError(error)
        image = open_image(data, max_pixels)
        is_small = image.width * image.height < jpeg.TENSORFLOW_PIXELS
        # libjpeg has no luma of CMYK
        if is_small and is_upright(data, max_pixels) and not (channels == 1 and image.mode == "CMYK"):
            import tensorflow as tf

            try:
                return tf.io.decode_image(data, channels=channels, expand_animations=False).numpy(), []
            except tf.errors.InvalidArgumentError:
                raise ValueError("is corrupt") from None
    pixels, applied = convert(data, max_pixels)
    if pixels.shape[2] > channels:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]
    return np.repeat(pixels, channels // pixels.shape[2], axis=2), applied


def convert(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, list[str]]:
    """Decode an image file as a person sees it.

    12 and 16 bits are reduced to the upper 8, transparent pixels lie on white, and of several images the first is
    taken. Color profiles are ignored. Memory: for each pixel 8 bytes (Pillow's 4, the result's 3 and a part), besides
    what the decoder takes: 2 for a progressive JPEG file, up to 4 for AVIF, 8 for WebP.

    Args:
        data: the file. Its size in pixels is checked before any are decoded.
        max_pixels: that an image may have.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) for grayscale, and what was applied, of "animation", "pages",
        "16 bits", "palette", "transparency", "CMYK" and "EXIF orientation". A JPEG file in CMYK needs no conversion:
        whoever decodes such a file converts its colors.

    Raises:
        ValueError: the file is invalid; the message continues "the file …".
        UserError: there is too little memory.
    """
    try:
        image = open_image(data, max_pixels)
        width, height = image.size
        if width * height <= max_pixels:
            return _convert(image, data)
    except UnidentifiedImageError:
        raise ValueError(_unidentified(data)) from None
    except MemoryError:  # not the file's fault: none may be left out for it
        what = f"too little memory to decode an image, which may have {max_pixels:,} pixels"
        raise UserError(f"{what}; free some, or lower max_pixels in params.yaml") from None
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {max_pixels:,} pixels") from None
    except Exception as error:  # a decoder may raise anything; the file is the cause
        reason = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in reason.lower() or _is_truncated_webp(data)
        raise ValueError("is truncated" if truncated else f"is corrupt: {reason}") from None
    raise ValueError(f"has {width:,} x {height:,} pixels, more than {max_pixels:,}")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> "PillowImage":
    """Open an image file of a format that can be read; decode nothing yet.

    Raises:
        Exception: of any kind, as Pillow and its plugins raise; the file is the cause.
    """
    _register_heif()
    return jpeg.open_image(io.BytesIO(data), FORMATS, max_pixels)


def is_upright(data: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether the pixels of a JPEG file lie as a person sees them: no EXIF data turn them. An invalid file does."""
    if b"Exif\0" not in data and b"tiff:Orientation" not in data:
        return True
    try:
        return _orientation(open_image(data, max_pixels)) not in LYING
    except Exception:  # whoever decodes it says what is wrong
        return True


@functools.cache
def _register_heif() -> None:
    if HAS_HEIF:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _convert(image: "PillowImage", data: bytes) -> tuple[np.ndarray, list[str]]:
    applied = []
    kind, orientation = image.format, _orientation(image)
    if kind in SEVERAL and getattr(image, "is_animated", False):
        applied.append(SEVERAL[kind])
        image.seek(0)
    image.load()
    if image.mode in DEEP:
        raise ValueError(f"values of Pillow's mode {image.mode} have no usual range; save it with 8 or 16 bits")
    if wide := image.mode.startswith(WIDE) or (kind == "PNG" and data[PNG_DEPTH] == 16):
        applied.append("16 bits")
    if image.mode == "P":
        applied.append("palette")
    if image.mode == "CMYK" and not data.startswith(JPEG):
        applied.append("CMYK")
    mode = "L" if image.mode in GRAYSCALE or image.mode.startswith(WIDE) else "RGB"
    (width, height), channels = image.size, 1 if mode == "L" else 3
    turned = orientation in LYING and kind != "TIFF"  # which Pillow turns while it loads the file
    pixels = np.empty((width, height, channels) if turned and orientation > 4 else (height, width, channels), np.uint8)
    lying = LYING[orientation](pixels) if turned else pixels
    rows = max(1, STRIP // width)
    transparent = False
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        if wide:
            part = _to_8_bits(part, getattr(image, "tag_v2", {}))
        if part.has_transparency_data:
            part = part.convert("LA" if mode == "L" else "RGBA")
            alpha = part.getchannel("A")
            transparent |= alpha.getextrema() != (255, 255)
            white = Image.new(mode, part.size, "white")
            white.paste(part.convert(mode), mask=alpha)
            part = white
        lying[top : top + rows] = np.asarray(part.convert(mode)).reshape(-1, width, channels)
    if transparent:
        applied.append("transparency")
    if orientation in LYING:
        applied.append("EXIF orientation")
    return pixels, applied


def _to_8_bits(image: "PillowImage", tags: Mapping[int, Any]) -> "PillowImage":
    """An image of up to 16 bits with its upper 8, and the same of the color that is transparent in it.

    Args:
        image: whose values have 16 bits, or had them in its file.
        tags: of a TIFF file, whose values Pillow neither scales nor inverts.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith(WIDE):
        (bits,) = tags.get(BITS, (16,))
        values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        image = Image.fromarray(~values if tags.get(INTERPRETATION) == WHITE_IS_ZERO else values)
    if isinstance(transparent, int):
        image.info["transparency"] = transparent >> 8
    elif isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _unidentified(data: bytes) -> str:
    """Why Pillow does not know what a file is."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "is corrupt" if HAS_HEIF else f"is a HEIC file: {INSTALL_HEIF}"
    if _is_truncated_webp(data):
        return "is truncated"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "is a TIFF file of a kind that cannot be read; convert it to PNG"
    return "is not an image in JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"


def _is_truncated_webp(data: bytes) -> bool:
    """Whether a WebP file is shorter than it says; its decoder only says that it failed."""
    return data.startswith(b"RIFF") and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _orientation(image: "PillowImage") -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # corrupt EXIF data: viewers show such an image as its pixels lie
        return 1
