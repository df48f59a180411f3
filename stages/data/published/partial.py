"""A file that is hashed while a mirror delivers it."""

import hashlib
from typing import BinaryIO


class MirrorError(Exception):
    """Why a mirror cannot deliver a file. The message never quotes a URL, which may contain a password."""


class PartialFile:
    """The part of a file that has arrived, and its hash.

    Args:
        out: the file to write to.
        algorithm: name of a hash function in hashlib.
    """

    def __init__(self, out: BinaryIO, algorithm: str) -> None:
        self.out = out
        self.algorithm = algorithm
        self.restart()

    def restart(self) -> None:
        """Discard what has arrived."""
        self.size = 0  # bytes
        self.digest = hashlib.new(self.algorithm, usedforsecurity=False)
        self.out.seek(0)
        self.out.truncate()

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self.out.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)
