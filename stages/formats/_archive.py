"""What the formats share: archives read as streams, never unpacked to disk, and one line that says what is wrong."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from stages.console import UserError

AGAIN = "delete it and download it again"


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
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
        raise UserError(f"{path}: damaged: {error}; {AGAIN}") from None


@contextmanager
def unpacked(path: Path) -> Iterator[gzip.GzipFile]:
    """Give the unpacked bytes of a gzip file.

    A block that ends well has read the file to its end, where gzip has its checksum: damage does not go unseen.
    """
    with naming(path), gzip.open(path) as stream:
        yield stream
        while stream.read(1 << 20):
            pass


def files_of(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar archive. What no honest dataset contains is refused: links, devices, ways out."""
    for member in archive:
        inside = not member.name.startswith("/") and ".." not in PurePosixPath(member.name).parts
        if not inside or not (member.isfile() or member.isdir()):
            kind = "a link or a device" if inside else "a path out of the archive"
            raise UserError(f"{path}: {member.name!r} is {kind}; do not use this archive")
        if member.isfile():
            yield member
