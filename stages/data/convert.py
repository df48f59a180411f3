"""Decode any common image file to the 8-bit pixels that a person sees, and to those that training sees."""

import functools
import io
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.data import jpeg
from stages.data.jpeg import MAX_PIXELS

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
GRAYSCALE = ["1", "L", "LA", "I;16"]  # Pillow's modes; those of 16 bits with colors or transparency have 8 bits already
DEEP = ["F", "I", "I;16S", "I;16BS"]  # Pillow's modes whose values have no usual range
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
        # libjpeg has no luma of CMYK
        if is_upright(data, max_pixels) and not (channels == 1 and open_image(data, max_pixels).mode == "CMYK"):
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

    16 bits are reduced to the upper 8, transparent pixels lie on white, and of several images the first is taken. Color
    profiles are ignored.

    Args:
        data: the file. Its size in pixels is checked before any are decoded.
        max_pixels: that an image may have.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) for grayscale, and what was applied, of "animation", "pages",
        "16 bits", "palette", "transparency", "CMYK" and "EXIF orientation". A JPEG file in CMYK needs no conversion:
        whoever decodes such a file converts its colors.

    Raises:
        ValueError: the file is invalid; the message continues "the file …".
    """
    try:
        image = open_image(data, max_pixels)
        width, height = image.size
        if width * height <= max_pixels:
            return _convert(image, data)
    except UnidentifiedImageError:
        raise ValueError(_unidentified(data)) from None
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
        return _orientation(open_image(data, max_pixels)) not in UPRIGHT
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
    if image.mode.startswith("I;16") or (kind == "PNG" and data[PNG_DEPTH] == 16):
        applied.append("16 bits")
        image = _to_8_bits(image)
    if image.mode == "P":
        applied.append("palette")
    if image.mode == "CMYK" and not data.startswith(JPEG):
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
        if kind != "TIFF":  # which Pillow turns while it loads the file
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
