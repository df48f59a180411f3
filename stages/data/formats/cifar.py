"""Read CIFAR-10's binary version: a tar.gz of batches whose records are a label byte and 3 x 1024 pixel bytes.

https://www.cs.toronto.edu/~kriz/cifar.html describes it. The Python version is a pickle, which runs code when read.
"""

import re
import tarfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, open_gzip, open_tar, regular_files, single_file
from stages.runtime.errors import UserError

SHAPE = (3, 32, 32)  # channels, rows, columns
RECORD = 1 + 3 * 32 * 32  # bytes
CHUNK = 256  # records that are read at once
CLASS_NAMES = "batches.meta.txt"


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the archive: image is uint8 (32, 32, 3).

    The key is the index in the split, with the batches in numeric order, whatever their order in the archive.

    Raises:
        UserError: the archive is corrupt or incomplete, or its class names are not `classes`.
    """
    path = single_file(folder, "*.tar.gz")
    # Random access: the batches of the published archive are in no order. Going back unpacks from the start again.
    with open_gzip(path) as stream, open_tar(stream, "r:") as archive:
        members = {PurePosixPath(member.name).name: member for member in regular_files(archive, path)}
        parts = [*_parts(path, members, "train"), *_parts(path, members, "test")]
        _check_names(path, archive, members, list(classes))
        # In the order of the archive, so that it is read from start to end.
        for split, batch, start in sorted(parts, key=lambda part: part[1].offset_data):
            for index, (label, image) in enumerate(_records(archive, batch), start):
                if label >= len(classes):
                    raise UserError(
                        f"{path}: {batch.name}: label {label}, but there are {len(classes)} classes; {DOWNLOAD_AGAIN}"
                    )
                yield split, f"{index:05d}", image, label


def _parts(path: Path, members: dict[str, tarfile.TarInfo], split: str) -> Iterator[tuple[str, tarfile.TarInfo, int]]:
    """Yield the split, a batch and the index of its first record, for the batches in numeric order."""
    if split == "test":
        names = ["test_batch.bin"]
    else:
        numbers = [int(found[1]) for name in members if (found := re.fullmatch(r"data_batch_([0-9]{1,4})\.bin", name))]
        names = [f"data_batch_{number}.bin" for number in range(1, max(numbers, default=1) + 1)]
    start = 0
    for name in names:
        if name not in members:
            raise UserError(f"{path}: {name} is missing; {DOWNLOAD_AGAIN}")
        if size := members[name].size % RECORD:
            raise UserError(
                f"{path}: {name} is truncated: its last record has {size} of {RECORD} bytes; {DOWNLOAD_AGAIN}"
            )
        yield split, members[name], start
        start += members[name].size // RECORD


def _check_names(path: Path, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], classes: list[str]) -> None:
    file = archive.extractfile(members[CLASS_NAMES]) if CLASS_NAMES in members else None
    if file is None:
        raise UserError(f"{path}: {CLASS_NAMES} is missing; {DOWNLOAD_AGAIN}")
    names = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    for label, (name, expected) in enumerate(zip_longest(names, classes)):
        if name != expected:
            raise UserError(
                f"{path}: {CLASS_NAMES} has {name!r} for label {label}, params.yaml {expected!r}; correct classes"
            )


def _records(archive: tarfile.TarFile, batch: tarfile.TarInfo) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the labels and images of a batch."""
    file = archive.extractfile(batch)
    assert file is not None  # a regular file
    while data := file.read(CHUNK * RECORD):
        block = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        yield from zip(block[:, 0].tolist(), block[:, 1:].reshape(-1, *SHAPE).transpose(0, 2, 3, 1), strict=True)
