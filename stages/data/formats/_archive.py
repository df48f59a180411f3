"""Read archives as streams, without unpacking them to disk, with one-line errors that name the file."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from stages.runtime.errors import UserError

# --force: if only the file was deleted, DVC would link the same corrupt file from its cache again.
DOWNLOAD_AGAIN = "get it again with `dvc repro --force --single-item download@DATASET`"

CORRUPT_ERRORS = (
    *(gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError),
    *(RecursionError, ValueError, OverflowError),  # from tarfile: endless headers, and fields that are not numbers
)

BUFFER = 1 << 16  # bytes that tarfile reads at once; its own default causes a call for every 10 kB

# Valid archives stay far below these limits. A malicious one ends in an error before it fills the memory.
MAX_FILE = 1 << 28  # bytes
MAX_HEADER = 1 << 16  # bytes: a long name is read at once
MAX_DEPTH = 32  # nested folders
MAX_UNPACKED = 1 << 28  # bytes, or, for large archives,
MAX_RATIO = 100  # times the archive's own size


def single_file(folder: Path, pattern: str) -> Path:
    """Return the only file of `folder` that matches `pattern`."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"{folder}: {len(found)} files match {pattern} instead of one; correct this dataset's files in params.yaml"
        )
    return found[0]


@contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Convert the errors that gzip and tarfile raise for corrupt data, which do not name the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: missing; add it to this dataset's files in params.yaml and download it") from None
    except CORRUPT_ERRORS as error:
        raise UserError(f"{path}: corrupt: {error}; {DOWNLOAD_AGAIN}") from None


@contextmanager
def open_gzip(path: Path) -> Iterator["Bounded"]:
    """Open a gzip file, with a limit on its unpacked size.

    If the block succeeds, the rest of the file is read up to the checksum at its end, so that no corruption is missed.
    """
    with name_file_in_errors(path), gzip.GzipFile(path) as packed:
        stream = Bounded(packed, path)
        yield stream
        while stream.read(1 << 20):
            pass


class Bounded:
    """Reads from a stream until it has unpacked more bytes than any dataset has."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        """Wrap a stream.

        Args:
            stream: unpacked bytes.
            path: the archive that they are unpacked from.
        """
        self._stream, self._path = stream, path
        self._limit = max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raise a `UserError` beyond 256 MiB and 100 times the size of the archive."""
        data = self._stream.read(size)
        if self.tell() > self._limit:
            raise UserError(f"{self._path}: it unpacks to more than {self._limit:,} bytes; do not use this archive")
        return data


class _CheckedMember(tarfile.TarInfo):
    """A member of a tar archive whose header is checked before any of its data is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_CheckedMember":
        """Reject headers that announce too much, and those that tarfile would take for the end of the archive."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without an end-of-archive mark")
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # the end-of-archive mark
                raise
            raise tarfile.ReadError(f"the header of a member: {error}") from None
        limit = MAX_FILE if member.isreg() else MAX_HEADER
        if not 0 <= member.size <= limit:
            raise tarfile.ReadError(f"{member.name!r} has a header that announces {member.size} bytes")
        return member


def open_tar(stream: Any, mode: Literal["r|", "r:"]) -> tarfile.TarFile:
    """Open the tar archive in `stream`: "r|" to read it once from start to end, "r:" for random access."""
    return tarfile.open(fileobj=stream, mode=mode, bufsize=BUFFER, tarinfo=_CheckedMember)


def regular_files(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar archive; reject what no dataset contains: links, devices, paths out of it."""
    for member in archive:
        if error := _find_error(member):
            raise UserError(f"{path}: {member.name[:200]!r} {error}; do not use this archive")
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every member in memory
        if member.isfile():
            yield member


def _find_error(member: tarfile.TarInfo) -> str:
    """What is wrong with a member, or an empty string."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts:
        return "is a path out of the archive"
    if not (member.isfile() or member.isdir()):
        return "is a link or a device"
    if not 0 <= member.size <= MAX_FILE:  # once more, because extended headers and sparse files change the size
        return f"has {member.size} bytes"
    if len(parts) > MAX_DEPTH:
        return f"is {len(parts)} folders deep"
    if re.search("[\ud800-\udfff]", member.name):
        return "has a name that is not UTF-8"
    return ""
