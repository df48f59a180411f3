"""Work that only one process of a clone may do at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.runtime.errors import UserError


@contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Hold the lock `path` for the time of the block; a `UserError` with `message` if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(message) from None
    with held:
        yield
