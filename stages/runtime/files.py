"""Files that are either whole or absent: atomic writes, and reads that name a file that is missing or corrupt."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
        _move(part, target, old)
        _sync(target.parent)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        folder = min((target.parent, Path(tempfile.gettempdir())), key=lambda folder: shutil.disk_usage(folder).free)
        raise UserError(
            f"{target}: no space left in {folder}: {_size(part):,} bytes of it were written, "
            f"{shutil.disk_usage(folder).free:,} are free; free some space and run `dvc repro` again"
        ) from None
    finally:
        remove(part)


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


def _move(part: Path, target: Path, old: Path) -> None:
    """Replace `target`. What cannot be replaced in one step, because one of both is a folder, goes to `old` first."""
    is_folder = target.is_dir() and not target.is_symlink()
    if not is_folder and not (part.is_dir() and os.path.lexists(target)):
        os.replace(part, target)
        return
    remove(old)
    os.replace(target, old)
    try:
        os.replace(part, target)
    except BaseException:
        os.replace(old, target)
        raise
    remove(old)


def _sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk, where the file system can tell."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # TensorFlow and HDF5 raise errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.lstat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
