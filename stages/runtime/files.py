"""Files that are either whole or absent: atomic writes, and reads that name a file that is missing or corrupt."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stages.runtime.errors import UserError

# What JSON, pandas and Arrow raise when they parse a corrupt file
PARSE_ERRORS = (ValueError, LookupError, TypeError, NotImplementedError, OSError)


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write a file or a folder to; move it to `target` if the block succeeds.

    The content is on the disk before it is moved: a power cut leaves the old file or the new one, and DVC never puts an
    empty file into its cache. A folder that replaces another one is absent for a moment.

    The path is the same in every process, so that the next run removes what a killed run left behind.

    Raises:
        UserError: the disk is full, whichever way the library that wrote to it reported that.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old.part")
    remove(part)
    remove(old)
    try:
        yield part
        for path in (part, *part.rglob("*")):
            _sync(path)
        if os.path.lexists(target) and (part.is_dir() or target.is_dir()):
            os.replace(target, old)  # a folder cannot be replaced in one step
        os.replace(part, target)
        remove(old)
        _sync(target.parent)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        folder = min((target.parent, Path(tempfile.gettempdir())), key=lambda folder: shutil.disk_usage(folder).free)
        size = sum(file.stat().st_size for file in (part, *part.rglob("*")) if file.is_file())
        raise UserError(
            f"{target}: no space left in {folder}: {size:,} bytes of it were written, "
            f"{shutil.disk_usage(folder).free:,} are free; free some space and run `dvc repro` again"
        ) from None
    finally:
        remove(part)


def write_json(value: Any, target: Path, indent: int = 2) -> None:
    """Write a value as JSON that people can read."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def open_input(path: Path, stage: str) -> Iterator[BinaryIO]:
    """Open an output of another stage. A parse error in the block becomes an error that names the file.

    Args:
        path: the file.
        stage: the stage that writes it, as `dvc repro` names it.

    Raises:
        UserError: the file is missing or corrupt. An `OSError` names the file if it may not be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `dvc repro {stage}` or `dvc pull`") from None
    except PARSE_ERRORS as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: corrupt: {what}; write it again with `dvc repro --force --single-item {stage}`"
        ) from None


def _sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # file systems that cannot tell
            raise
    finally:
        os.close(descriptor)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full."""
    if error is None:
        return False
    return (
        (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
        or os.strerror(errno.ENOSPC) in str(error)  # TensorFlow and HDF5 raise errors of their own
        or _is_disk_full(error.__cause__ or error.__context__)
    )


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_hash(path: Path, algorithm: str) -> str:
    """The hash of a file in hexadecimal digits, as DVC computes it for "md5"; `algorithm` is a name in hashlib."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
