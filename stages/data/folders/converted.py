"""Decode the images of a source, in threads, to the files that its records hold."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from stages.data import convert, jpeg
from stages.data.jpeg import MAX_PIXELS
from stages.runtime import limits

PNG_COMPRESSION = 3  # as in stages/data/writer.py

Contents = Iterable[tuple[str, Callable[[], bytes]]]  # the name of each image, and a function that reads its file


class Content(NamedTuple):
    """What is known of an image of a source after it was decoded."""

    name: str
    digest: bytes  # of the file
    error: str  # what is wrong with it, or empty
    applied: list[str]  # names of conversions, as `convert` returns them
    shape: tuple[int, int, int]  # height, width, and 1 or 3 channels


def convert_all(contents: Contents, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Content, bytes]]:
    """Decode images in threads; yield them in their order, each with its file as records hold it.

    That is the file itself if it is a JPEG file that needs no conversion and is not too large for TensorFlow, else a
    PNG file; empty if it is invalid.

    Args:
        contents: the images.
        max_pixels: that an image may have.
    """
    workers = min(limits.cores(), 8)
    pending = deque[Future[tuple[Content, bytes]]]()
    with ThreadPoolExecutor(workers) as pool:
        for name, read in contents:
            pending.append(pool.submit(_convert, name, read, max_pixels))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _convert(name: str, read: Callable[[], bytes], max_pixels: int) -> tuple[Content, bytes]:
    digest = b""
    try:
        data = read()
        digest = hashlib.sha256(data).digest()
        if not data:
            raise ValueError("is empty")
        pixels, applied = convert.convert(data, max_pixels)
        height, width, channels = pixels.shape
        stays = not applied and data.startswith(convert.JPEG) and height * width < jpeg.TENSORFLOW_PIXELS
        if stays and (error := jpeg.find_error(data, max_pixels=max_pixels)):
            raise ValueError(error)
    except ValueError as error:
        return Content(name, digest, str(error), [], (0, 0, 0)), b""
    if not stays:
        file = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        image.save(file, "PNG", compress_level=PNG_COMPRESSION)
        data = file.getvalue()
    return Content(name, digest, "", applied, (height, width, channels)), data
