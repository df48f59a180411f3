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
NAMES = "batches.meta.txt"


def examples(folder: Path, split: str, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield (key, image, label) in the order of the batches: image is uint8 (32, 32, 3), key the index in the split.

    Raises:
        UserError: the archive is damaged or incomplete, or its class names are not `classes`.
    """
    path = only(folder, "*.tar.gz")
    # Not a stream ("r|"): the published archive holds its batches in no order. Going back unpacks from the start again.
    with unpacked(path) as stream, open_tar(stream, "r:") as archive:
        members = {PurePosixPath(member.name).name: member for member in files_of(archive, path)}
        batches = _batches(path, members, split)
        _check_names(path, archive, members, list(classes))
        index = 0
        for batch in batches:
            for record in _records(archive, batch):
                label = record[0]
                if label >= len(classes):
                    raise UserError(
                        f"{path}: {batch.name}: label {label}, but there are {len(classes)} classes; {AGAIN}"
                    )
                yield f"{index:05d}", np.frombuffer(record, np.uint8, offset=1).reshape(SHAPE).transpose(1, 2, 0), label
                index += 1


def _batches(path: Path, members: dict[str, tarfile.TarInfo], split: str) -> list[tarfile.TarInfo]:
    """The split's batches in numeric order, each of whole records."""
    if split == "test":
        names = ["test_batch.bin"]
    else:
        numbers = [int(found[1]) for name in members if (found := re.fullmatch(r"data_batch_([0-9]{1,4})\.bin", name))]
        names = [f"data_batch_{number}.bin" for number in range(1, max(numbers, default=1) + 1)]
    for name in names:
        if name not in members:
            raise UserError(f"{path}: {name} is missing; {AGAIN}")
        if size := members[name].size % RECORD:
            raise UserError(f"{path}: {name} is truncated: its last record has {size} of {RECORD} bytes; {AGAIN}")
    return [members[name] for name in names]


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


def _records(archive: tarfile.TarFile, batch: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(batch)
    assert file is not None  # a regular file
    while record := file.read(RECORD):
        yield record
