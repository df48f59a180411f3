"""Image files for prediction: find them, and predict them in the order in which they were named."""

import glob
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.data.convert import is_image
from stages.data.folders.listing import is_hidden
from stages.inference.predictor import Predictor

MAX_BYTES = 1 << 28  # of a file
AHEAD = 2  # batches that are read while one is predicted


class Prediction(NamedTuple):
    """What became of one file: probabilities (classes,), or why there are none."""

    path: Path
    probabilities: np.ndarray | None
    conversions: list[str]
    error: str = ""
    verdict: str | None = None  # not sure


def find_images(patterns: Iterable[str]) -> list[Path]:
    """Files in the order of `patterns`, each once: a file, a folder with all images below it, or a glob.

    A folder stands for the files in it that have the suffix of an image. A name that does not exist is kept, as is a
    folder that cannot be read: it becomes an error when it is read.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else sorted(_glob(path))
        for match in matches or [path]:
            if match.is_dir():
                found.update(dict.fromkeys(sorted(_below(match))))
            else:
                found[match] = None
    return list(found)


def _glob(pattern: Path) -> Iterator[Path]:
    """The files that match a pattern, in whose existing folders brackets are no pattern; no hidden ones."""
    exists = [name for name in (pattern.parents) if name.is_dir()]
    known = exists[0] if exists else Path()
    rest = pattern.relative_to(known)
    for name in glob.iglob(str(rest), root_dir=known, recursive=True):
        if not any(part not in rest.parts and is_hidden(part) for part in Path(name).parts):
            yield known / name


def _below(folder: Path) -> Iterator[Path]:
    """The images below a folder, and the folders that cannot be read."""
    unreadable: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders[:] = [name for name in folders if not is_hidden(name)]
        files = (Path(root, name) for name in names if is_image(name) and not is_hidden(name))
        yield from (file for file in files if file.is_file())
    yield from unreadable


def predict_files(predictor: Predictor, paths: Iterable[Path], threads: int) -> Iterator[Prediction]:
    """Predict files; an invalid one is a `Prediction` with an error.

    A pool of threads reads and decodes the next batches meanwhile. No more than a few batches are in memory.

    Args:
        predictor: the model.
        paths: the files, in any number.
        threads: number of threads that read and decode.
    """
    remaining = iter(paths)
    waiting: deque[tuple[Path, Future[tuple[np.ndarray, list[str]]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for path in islice(remaining, (1 + AHEAD) * predictor.batch_size - len(waiting)):
                    waiting.append((path, pool.submit(_read, predictor, path)))
                if not waiting:
                    return
                yield from _predict(
                    predictor, [waiting.popleft() for _ in range(min(len(waiting), predictor.batch_size))]
                )
        finally:
            pool.shutdown(cancel_futures=True)


def _predict(
    predictor: Predictor, batch: list[tuple[Path, "Future[tuple[np.ndarray, list[str]]]"]]
) -> Iterator[Prediction]:
    errors = {path: str(error) for path, future in batch if (error := future.exception())}
    decoded = [future.result()[0] for path, future in batch if path not in errors]
    probabilities = iter(predictor.predict_pixels(np.stack(decoded)) if decoded else ())
    for path, future in batch:
        if path in errors:
            yield Prediction(path, None, [], errors[path])
        else:
            row = next(probabilities)
            yield Prediction(path, row, future.result()[1], verdict=predictor.verdict(row))


def _read(predictor: Predictor, path: Path) -> tuple[np.ndarray, list[str]]:
    """Pixels and conversions of a file.

    Raises:
        ValueError: it cannot be read, or it is not an image.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("is a folder that cannot be read")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe may never end
            raise ValueError("is not a file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return predictor.decode(data)
