"""Check that a file is a JPEG image that training will be able to decode."""

import io
import warnings

from PIL import Image, UnidentifiedImageError
from PIL.Image import Image as PillowImage

from stages.runtime.errors import UserError

BOMB = Image.MAX_IMAGE_PIXELS or 0  # Pillow refuses to open what has twice as many pixels
MAX_PIXELS = 1 << 26  # of three bytes: 200 MB decoded
TENSORFLOW_PIXELS = 1 << 27  # TensorFlow decodes no JPEG file of 2**29 values, of which a pixel has up to four
END = b"\xff\xd9"


def open_image(file: io.BytesIO, formats: list[str], max_pixels: int) -> PillowImage:
    """Open an image file without decoding it. The caller checks the number of pixels.

    Raises:
        Exception: of any kind, as Pillow's plugins raise; the file is the cause.
    """
    Image.MAX_IMAGE_PIXELS = max(BOMB, max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is large, or has corrupt EXIF data
        return Image.open(file, formats=formats)


def find_error(data: bytes, decode: bool = False, max_pixels: int = MAX_PIXELS) -> str:
    """Return what is wrong with a JPEG file, or an empty string.

    Grayscale, CMYK and progressive images are valid. The orientation in EXIF data is ignored.

    Args:
        data: the file.
        decode: also decode it, at an eighth of its size: this finds corrupt data, and takes seven times as long.
            A truncated file is found without.
        max_pixels: that an image may have.

    Raises:
        UserError: there is too little memory.
    """
    file = io.BytesIO(data)
    try:
        image = open_image(file, ["JPEG"], max_pixels)
        width, height = image.size
        if width * height > max_pixels:
            return f"has {width} x {height} pixels, more than {max_pixels:,}"
        # Pillow has read up to the pixels. A thumbnail before them has an end mark of its own.
        if data.find(END, file.tell()) < 0:
            return "is truncated: it has no end mark"
        if decode:
            image.draft("L", (1, 1))
            image.load()
    except Image.DecompressionBombError:
        return f"has more than {max_pixels:,} pixels"
    except MemoryError:  # not the file's fault: none may be left out for it
        raise UserError("too little memory to check an image; free some") from None
    except Exception as error:  # a decoder may raise anything; the file is the cause
        return "is not a JPEG file" if isinstance(error, UnidentifiedImageError) else f"is corrupt: {error}"
    return ""
