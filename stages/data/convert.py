"""Decode any common image file to the 8-bit pixels that a person sees."""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.data.jpeg import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]
ANIMATED = ["PNG", "WEBP", "GIF"]
GRAYSCALE = ["1", "L", "LA", "I;16"]  # Pillow's modes; those of 16 bits with colors or transparency have 8 bits already
PNG_DEPTH = 24  # position of the bit depth in a PNG file
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def convert(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Decode a JPEG, PNG, WebP, GIF or BMP file as a person sees it.

    16 bits are reduced to the upper 8, transparent pixels lie on white, and an animation is its first frame. Color
    profiles are ignored.

    Args:
        data: the file. Its size in pixels is checked before any are decoded.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) for grayscale, and what was applied, of "animation", "16 bits",
        "palette", "transparency", "CMYK" and "EXIF orientation".

    Raises:
        ValueError: the file is invalid; the message continues "the file …".
    """
    try:
        image = _open(data)
        size, limit = image.size, MAX_PIXELS
        if size[0] * size[1] <= limit:
            return _convert(image, data)
    except UnidentifiedImageError:
        raise ValueError(
            "is truncated" if _is_truncated_webp(data) else "is not an image in JPEG, PNG, WebP, GIF or BMP"
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # a decoder may raise anything; the file is the cause
        reason = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in reason.lower() or _is_truncated_webp(data)
        raise ValueError("is truncated" if truncated else f"is corrupt: {reason}") from None
    raise ValueError(f"has {size[0]:,} x {size[1]:,} pixels, more than {limit:,}")


def is_upright(data: bytes) -> bool:
    """Whether the pixels of a JPEG file lie as a person sees them: no EXIF data turn them. An invalid file does."""
    if b"Exif\0" not in data and b"tiff:Orientation" not in data:
        return True
    try:
        return _orientation(_open(data)) not in UPRIGHT
    except Exception:  # whoever decodes it says what is wrong
        return True


def _open(data: bytes) -> "PillowImage":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _convert(image: "PillowImage", data: bytes) -> tuple[np.ndarray, list[str]]:
    applied = []
    orientation = _orientation(image)
    if image.format in ANIMATED and getattr(image, "is_animated", False):
        applied.append("animation")
        image.seek(0)
    image.load()
    if image.format == "PNG" and data[PNG_DEPTH] == 16:
        applied.append("16 bits")
        image = _to_8_bits(image)
    if image.mode == "P":
        applied.append("palette")
    if image.mode == "CMYK":
        applied.append("CMYK")
    mode = "L" if image.mode in GRAYSCALE else "RGB"
    if image.has_transparency_data:
        image = image.convert("LA" if mode == "L" else "RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            applied.append("transparency")
            white = Image.new(mode, image.size, "white")
            white.paste(image.convert(mode), mask=alpha)
            image = white
    image = image.convert(mode)
    if orientation in UPRIGHT:
        applied.append("EXIF orientation")
        image = image.transpose(UPRIGHT[orientation])
    pixels = np.array(image)
    return (pixels[:, :, np.newaxis] if mode == "L" else pixels), applied


def _to_8_bits(image: "PillowImage") -> "PillowImage":
    """An image of 16 bits with its upper 8, and the same of the color that is transparent in it."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if isinstance(transparent, int):
        image.info["transparency"] = transparent >> 8
    elif isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _is_truncated_webp(data: bytes) -> bool:
    """Whether a WebP file is shorter than it says; its decoder only says that it failed."""
    return data.startswith(b"RIFF") and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _orientation(image: "PillowImage") -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # corrupt EXIF data: viewers show such an image as its pixels lie
        return 1
