"""What the formats share: archives read as streams, never unpacked to disk, and one line that says what is wrong."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from stages.console import UserError

# DVC links a file from its cache without looking at it: deleted alone, the damaged one would come back.
AGAIN = "get it again with `dvc repro --force --single-item download@DATASET`"

DAMAGE = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError)
NONSENSE = (
    RecursionError,
    ValueError,
    OverflowError,
)  # tarfile's: names without end, numbers that are none or too large

BUFFER = 1 << 16  # bytes that tarfile reads at once: its own choice costs a call for every 10 kB

# What honest archives stay far below. A hostile one ends in an error before it fills the memory.
LARGEST_FILE = 1 << 28  # bytes
LARGEST_HEADER = 1 << 16  # bytes: a long name is read at once
DEEPEST = 32  # folders in folders
LARGEST_UNPACKED = 1 << 28  # bytes; where the archive itself is large,
LARGEST_RATIO = 100  # so many times its size


def only(folder: Path, pattern: str) -> Path:
    """The one file of `folder` that matches."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"{folder}: {len(found)} files match {pattern}, not one; correct this dataset's files in params.yaml"
        )
    return found[0]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what gzip and tar raise on damage into a `UserError` that names the file, which theirs do not."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: missing; name it in this dataset's files in params.yaml and download it") from None
    except (*DAMAGE, *NONSENSE) as error:
        raise UserError(f"{path}: damaged: {error}; {AGAIN}") from None


@contextmanager
def unpacked(path: Path) -> Iterator[gzip.GzipFile]:
    """Give the unpacked bytes of a gzip file, as long as they are in proportion.

    A block that ends well has read the file to its end, where gzip has its checksum: damage does not go unseen.
    """
    with naming(path), _Unpacked(path) as stream:
        yield stream
        while stream.read(1 << 20):
            pass


class _Unpacked(gzip.GzipFile):
    """A gzip file that is no bomb."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.most = max(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > self.most:
            raise UserError(f"{self.path}: more than {self.most:,} bytes come out of it; do not use this archive")
        return data


class _Member(tarfile.TarInfo):
    """A member of a tar archive whose header is checked before anything that it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """Refuse a header that tarfile would take for the end of the archive, and one that announces too much."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without an end-of-archive mark")
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # the mark
                raise
            raise tarfile.ReadError(f"the header of a file in it: {error}") from None
        most = LARGEST_FILE if member.isreg() else LARGEST_HEADER
        if not 0 <= member.size <= most:
            raise tarfile.ReadError(f"{member.name!r} is announced with {member.size} bytes")
        return member


def open_tar(stream: gzip.GzipFile, mode: Literal["r|", "r:"]) -> tarfile.TarFile:
    """The tar archive in `stream`: "r|" to read it once from front to back, "r:" to go back too."""
    return tarfile.open(fileobj=stream, mode=mode, bufsize=BUFFER, tarinfo=_Member)


def files_of(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar archive. What no honest dataset contains is refused: links, devices, ways out."""
    for member in archive:
        if fault := _fault(member):
            raise UserError(f"{path}: {member.name[:200]!r} {fault}; do not use this archive")
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has met
        if member.isfile():
            yield member


def _fault(member: tarfile.TarInfo) -> str:
    """What is wrong with a member, or nothing."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts:
        return "is a path out of the archive"
    if not (member.isfile() or member.isdir()):
        return "is a link or a device"
    if not 0 <= member.size <= LARGEST_FILE:  # again: extended headers and holes in a file can say otherwise
        return f"has {member.size} bytes"
    if len(parts) > DEEPEST:
        return f"is {len(parts)} folders deep"
    if re.search("[\ud800-\udfff]", member.name):
        return "is not a name in UTF-8"
    return ""
