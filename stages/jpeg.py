"""Whether a file is a JPEG image that training will be able to decode."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

LARGEST = 1 << 26  # pixels; decoded, that is 200 MB
END = b"\xff\xd9"


def fault(data: bytes, decode: bool = False) -> str:
    """What is wrong with a JPEG file, or nothing.

    Grey, CMYK and progressive images are as good as any other. An orientation in their EXIF data is not looked at, here
    or anywhere: images are stored and trained on as their pixels lie.

    Args:
        data: the file.
        decode: also decode it, in an eighth of its size, which finds damage within and costs seven times as much. What
            is truncated is found without.
    """
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(file, formats=["JPEG"])
        width, height = image.size
        if width * height > LARGEST:
            return f"has {width} x {height} pixels, more than {LARGEST:,}"
        if data.find(END, file.tell()) < 0:  # Pillow stands before the pixels; a thumbnail before them has its own end
            return "is truncated: it has no end mark"
        if decode:
            image.draft("L", (1, 1))
            image.load()
    except Image.DecompressionBombError:
        return f"has more than {LARGEST:,} pixels"
    except Exception as error:  # whatever a decoder raises, the file is why
        return "is not a JPEG file" if isinstance(error, UnidentifiedImageError) else f"is damaged: {error}"
    return ""
