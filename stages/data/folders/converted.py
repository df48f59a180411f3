"""What each image looks like after conversion, remembered by its content: a rerun decodes only new images."""

import hashlib
import io
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import Image

from stages.data import convert, jpeg
from stages.data.jpeg import MAX_PIXELS
from stages.runtime import limits, paths
from stages.runtime.errors import UserError

PNG_COMPRESSION = 3  # as in stages/data/writer.py


class Fact(NamedTuple):
    """What is known of an image after it was decoded."""

    error: str  # what is wrong with it, or empty
    applied: list[str]  # names of conversions, as `convert` returns them
    height: int
    width: int
    channels: int  # 1 or 3
    is_stored: bool  # whether it is stored as a PNG file; a JPEG file that needs no conversion stays as it is


class Content(NamedTuple):
    """An image of a source."""

    name: str
    digest: bytes  # of the file
    fact: Fact


class ConvertedImages:
    """The images that this clone has decoded, in one file. See `open_converted`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._version = database, _version()
        self.decoded = 0  # images that were not known before

    def convert(
        self, contents: Iterator[tuple[str, Callable[[], bytes]]], max_pixels: int = MAX_PIXELS
    ) -> Iterator[Content]:
        """Decode what has not been decoded before, in threads; yield all images in their order."""
        workers = min(limits.cores(), 8)
        pending: deque[tuple[str, bytes, Fact | Future[tuple[Fact, bytes | None]]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for name, read in contents:
                try:
                    data = read()
                except ValueError as error:  # it is too large
                    pending.append((name, b"", Fact(str(error), [], 0, 0, 0, False)))
                else:
                    digest = hashlib.sha256(data).digest()
                    fact = self._find(digest, max_pixels)
                    pending.append((name, digest, fact or pool.submit(_convert, data, max_pixels)))
                if len(pending) > 2 * workers:
                    yield self._finished(*pending.popleft())
            while pending:
                yield self._finished(*pending.popleft())

    def stored(self, digest: bytes) -> bytes:
        """The PNG file of a converted image, after `convert` has yielded all."""
        return self._database.execute("SELECT png FROM images WHERE key = ?", [self._key(digest)]).fetchone()[0]

    def _finished(self, name: str, digest: bytes, fact: Fact | Future[tuple[Fact, bytes | None]]) -> Content:
        if isinstance(fact, Future):
            fact, png = fact.result()
            if not fact.error:  # of which some depend on the limit of pixels
                self.decoded += 1
                row = [self._key(digest), json.dumps(fact), png]
                self._database.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", row)
        return Content(name, digest, fact)

    def _find(self, digest: bytes, max_pixels: int) -> Fact | None:
        row = self._database.execute("SELECT fact FROM images WHERE key = ?", [self._key(digest)]).fetchone()
        fact = Fact(*json.loads(row[0])) if row else None
        return fact if fact and fact.height * fact.width <= max_pixels else None

    def _key(self, digest: bytes) -> bytes:
        return digest + self._version  # what other code decoded is not found


@contextmanager
def open_converted(path: Path = paths.CONVERTED) -> Iterator[ConvertedImages]:
    """Open the file for the time of the block; what was decoded stays, also if the block fails.

    Raises:
        UserError: it is corrupt, or its disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Each image is a transaction of its own, as other stages may use the file at the same time
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")  # after a power failure it may be corrupt, and be removed
            database.execute("CREATE TABLE IF NOT EXISTS images (key BLOB PRIMARY KEY, fact TEXT, png BLOB)")
            yield ConvertedImages(database)
    except sqlite3.Error as error:
        raise UserError(f"{path}: {error}; if the disk is not full, remove this file and run it again") from None


def _convert(data: bytes, max_pixels: int) -> tuple[Fact, bytes | None]:
    """What is known of a file, and its image as PNG unless it is a JPEG file that needs no conversion."""
    try:
        if not data:
            raise ValueError("is empty")
        pixels, applied = convert.convert(data, max_pixels)
        height, width, channels = pixels.shape
        if not applied and data.startswith(convert.JPEG):
            if error := jpeg.find_error(data, max_pixels=max_pixels):
                raise ValueError(error)
            return Fact("", [], height, width, channels, False), None
    except ValueError as error:
        return Fact(str(error), [], 0, 0, 0, False), None
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        file, "PNG", compress_level=PNG_COMPRESSION
    )
    return Fact("", applied, height, width, channels, True), file.getvalue()


def _version() -> bytes:
    """Stands for the code that decodes images."""
    code = b"".join(Path(module.__file__ or "").read_bytes() for module in (convert, jpeg))
    text = code + Path(__file__).read_bytes() + f"{PIL.__version__} {convert.HAS_HEIF}".encode()
    return hashlib.sha256(text).digest()[:3]
