"""Read archives as streams, without unpacking them to disk, with one-line errors that name the file.

What an archive contains is trusted: params.yaml has its hash. What the disk has made of it since is not.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.runtime.errors import UserError

# --force: if only the file was deleted, DVC would link the same corrupt file from its cache again.
DOWNLOAD_AGAIN = "get it again with `dvc repro --force --single-item download@DATASET`"
CORRUPT_ERRORS = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError)
CHUNK = 1 << 20  # bytes


def single_file(folder: Path, pattern: str) -> Path:
    """Return the only file of `folder` that matches `pattern`."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"{folder}: {len(found)} files match {pattern} instead of one; correct this dataset's files in params.yaml"
        )
    return found[0]


@contextmanager
def open_gzip(path: Path) -> Iterator[gzip.GzipFile]:
    """Open a gzip file; the errors that gzip and tarfile raise for corrupt data do not name it, those of the block do.

    If the block succeeds, the rest of the file is read up to the checksum at its end, so that no corruption is missed.
    """
    try:
        with gzip.GzipFile(path) as stream:
            yield stream
            while stream.read(CHUNK):
                pass
    except FileNotFoundError:
        raise UserError(f"{path}: missing; add it to this dataset's files in params.yaml and download it") from None
    except CORRUPT_ERRORS as error:
        raise UserError(f"{path}: corrupt: {error}; {DOWNLOAD_AGAIN}") from None


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar.gz archive for random access, which unpacks from the start again to go back."""
    with open_gzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        yield archive
