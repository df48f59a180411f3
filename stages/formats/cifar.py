"""CIFAR-10's binary version: a tar.gz of batches whose records are a label byte and 3 x 1024 pixel bytes.

https://www.cs.toronto.edu/~kriz/cifar.html describes it. The Python version is a pickle, which runs code when read.
"""

import re
import tarfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from stages.console import UserError
from stages.formats._archive import AGAIN, files_of, only, open_tar, unpacked

SHAPE = (3, 32, 32)  # channels, rows, columns
RECORD = 1 + 3 * 32 * 32
CHUNK = 256  # records that are read at once
NAMES = "batches.meta.txt"


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the archive: image is uint8 (32, 32, 3).

    The key is the index in the split, which counts the batches in numeric order, whatever theirs in the archive.

    Raises:
        UserError: the archive is damaged or incomplete, or its class names are not `classes`.
    """
    path = only(folder, "*.tar.gz")
    # Not a stream ("r|"): the published archive holds its batches in no order. Going back unpacks from the start again.
    with unpacked(path) as stream, open_tar(stream, "r:") as archive:
        members = {PurePosixPath(member.name).name: member for member in files_of(archive, path)}
        parts = [*_parts(path, members, "train"), *_parts(path, members, "test")]
        _check_names(path, archive, members, list(classes))
        # In the order of the archive, which is read from front to back then.
        for split, batch, start in sorted(parts, key=lambda part: part[1].offset_data):
            for index, (label, image) in enumerate(_records(archive, batch), start):
                if label >= len(classes):
                    raise UserError(
                        f"{path}: {batch.name}: label {label}, but there are {len(classes)} classes; {AGAIN}"
                    )
                yield split, f"{index:05d}", image, label


def _parts(path: Path, members: dict[str, tarfile.TarInfo], split: str) -> Iterator[tuple[str, tarfile.TarInfo, int]]:
    """The split, its batches in numeric order, each of whole records, and the index of the first one."""
    if split == "test":
        names = ["test_batch.bin"]
    else:
        numbers = [int(found[1]) for name in members if (found := re.fullmatch(r"data_batch_([0-9]{1,4})\.bin", name))]
        names = [f"data_batch_{number}.bin" for number in range(1, max(numbers, default=1) + 1)]
    start = 0
    for name in names:
        if name not in members:
            raise UserError(f"{path}: {name} is missing; {AGAIN}")
        if size := members[name].size % RECORD:
            raise UserError(f"{path}: {name} is truncated: its last record has {size} of {RECORD} bytes; {AGAIN}")
        yield split, members[name], start
        start += members[name].size // RECORD


def _check_names(path: Path, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], classes: list[str]) -> None:
    file = archive.extractfile(members[NAMES]) if NAMES in members else None
    if file is None:
        raise UserError(f"{path}: {NAMES} is missing; {AGAIN}")
    names = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    for label, (name, expected) in enumerate(zip_longest(names, classes)):
        if name != expected:
            raise UserError(
                f"{path}: {NAMES} has {name!r} for label {label}, params.yaml {expected!r}; correct classes"
            )


def _records(archive: tarfile.TarFile, batch: tarfile.TarInfo) -> Iterator[tuple[int, np.ndarray]]:
    """Labels and images of a batch."""
    file = archive.extractfile(batch)
    assert file is not None  # a regular file
    while data := file.read(CHUNK * RECORD):
        block = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        yield from zip(block[:, 0].tolist(), block[:, 1:].reshape(-1, *SHAPE).transpose(0, 2, 3, 1), strict=True)
