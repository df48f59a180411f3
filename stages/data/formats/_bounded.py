"""A limit on what a compressed stream unpacks to, for streams that gzip's own limit does not cover."""

from pathlib import Path
from typing import Any, Protocol

from stages.data.formats._archive import MAX_RATIO, MAX_UNPACKED
from stages.runtime.errors import UserError


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Bounded:
    """Reads from a stream until it has given more bytes than any dataset has."""

    def __init__(self, stream: "_Stream", path: Path, size: int) -> None:
        self._stream, self._path = stream, path
        self._limit = max(MAX_UNPACKED, MAX_RATIO * size)
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        if self._count > self._limit:
            raise UserError(f"{self._path}: it unpacks to more than {self._limit:,} bytes; do not use this archive")
        return data


def bounded(stream: "_Stream", path: Path, size: int) -> Any:
    """Wrap a stream for `open_tar`.

    Args:
        stream: unpacked bytes.
        path: the archive, for the error.
        size: of the packed stream in bytes.

    Returns:
        A stream whose `read` raises a `UserError` beyond 256 MiB and 100 times `size`.
    """
    return _Bounded(stream, path, size)
