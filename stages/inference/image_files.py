"""Image files for prediction: find them, and predict them in the order in which they were named."""

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.data.convert import is_image
from stages.data.folders.listing import is_hidden
from stages.inference.predictor import Predictor

MAX_BYTES = 1 << 28  # largest file that is read


class Prediction(NamedTuple):
    """What became of one file: probabilities (classes,), or why there are none."""

    path: Path
    probabilities: np.ndarray | None
    conversions: list[str]
    error: str = ""
    verdict: str | None = None  # not sure, or none of these


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
    known = next(filter(Path.is_dir, pattern.parents), Path())
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
    """Predict files; an invalid one is a `Prediction` with an error. The files of one batch are in memory.

    Args:
        predictor: the model.
        paths: the files, in any number.
        threads: number of threads that read and decode.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(remaining, predictor.batch_size)):
            found = list(pool.map(lambda path: _read(predictor, path), batch))
            decoded = [pixels for pixels, _, _ in found if pixels is not None]
            answers = iter(predictor.answer(np.stack(decoded)) if decoded else ())
            for path, (_, conversions, error) in zip(batch, found, strict=True):
                if error:
                    yield Prediction(path, None, [], error)
                else:
                    probabilities, verdict = next(answers)
                    yield Prediction(path, probabilities, conversions, verdict=verdict)


def _read(predictor: Predictor, path: Path) -> tuple[np.ndarray | None, list[str], str]:
    """Pixels and conversions of a file, or what is wrong with it."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("is a folder that cannot be read")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe may never end
            raise ValueError("is not a file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        return *predictor.decode(path.read_bytes()), ""
    except FileNotFoundError:
        return None, [], "does not exist"
    except OSError as error:
        return None, [], f"cannot be read: {error.strerror}"
    except ValueError as error:
        return None, [], str(error)
