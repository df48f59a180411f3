"""Outputs that are either whole or not there, and inputs that are either good or named."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stages.console import UserError

DAMAGE = (ValueError, LookupError, TypeError, NotImplementedError, OSError)  # what JSON, pandas and Arrow raise of it


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write a file or a folder to; move it into place when the block ends well.

    The path is the same in every process, so that what a killed run left behind is removed by the next one.

    Raises:
        UserError: the disk is full, whichever way the library that wrote to it said so.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    _remove(part)
    try:
        yield part
        _remove(target)
        os.replace(part, target)
    except Exception as error:
        if not _is_full(error):
            raise
        folder = min((target.parent, Path(tempfile.gettempdir())), key=lambda folder: shutil.disk_usage(folder).free)
        raise UserError(
            f"{target}: no space left in {folder}: {_size(part):,} bytes of it were written, "
            f"{shutil.disk_usage(folder).free:,} are free; make space and run `dvc repro` again"
        ) from None
    finally:
        _remove(part)


@contextmanager
def reading(path: Path, stage: str) -> Iterator[BinaryIO]:
    """Give an output of `stage` to read. What a parser raises in the block on anything but a whole file names the file.

    Args:
        path: the file.
        stage: what writes it, as `dvc repro` has it.

    Raises:
        UserError: it is missing or damaged. An `OSError` that names it, too: it may not be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `dvc repro {stage}` or `dvc pull`") from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: damaged: {what}; write it again with `dvc repro --force --single-item {stage}`"
        ) from None


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # TensorFlow and HDF5 have errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.lstat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
