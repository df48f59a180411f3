"""Check that a file is a JPEG image that training will be able to decode."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 1 << 26  # decoded, that is 200 MB
END = b"\xff\xd9"


def find_error(data: bytes, decode: bool = False) -> str:
    """Return what is wrong with a JPEG file, or an empty string.

    Grayscale, CMYK and progressive images are valid. The orientation in EXIF data is ignored, here and everywhere else:
    images are stored and trained on as their pixels lie.

    Args:
        data: the file.
        decode: also decode it, at an eighth of its size: this finds corrupt data, and takes seven times as long.
            A truncated file is found without.
    """
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(file, formats=["JPEG"])
        width, height = image.size
        if width * height > MAX_PIXELS:
            return f"has {width} x {height} pixels, more than {MAX_PIXELS:,}"
        # Pillow has read up to the pixels. A thumbnail before them has an end mark of its own.
        if data.find(END, file.tell()) < 0:
            return "is truncated: it has no end mark"
        if decode:
            image.draft("L", (1, 1))
            image.load()
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS:,} pixels"
    except Exception as error:  # a decoder may raise anything; the file is the cause
        return "is not a JPEG file" if isinstance(error, UnidentifiedImageError) else f"is corrupt: {error}"
    return ""
