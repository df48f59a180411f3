"""Read the binary versions of CIFAR-10 and CIFAR-100: a tar.gz of batches of records, label bytes and 3 x 1024 pixels.

https://www.cs.toronto.edu/~kriz/cifar.html describes it. The Python version is a pickle, which runs code when read. A
record of CIFAR-100 has two labels, one of 20 superclasses and one of 100 classes: `classes` says which are used.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, open_tar, single_file
from stages.runtime.errors import UserError

SHAPE = (3, 32, 32)  # channels, rows, columns
PIXELS = 3 * 32 * 32  # bytes
CHUNK = 256  # records that are read at once
NAMES_10 = ("batches.meta.txt",)
NAMES_100 = ("coarse_label_names.txt", "fine_label_names.txt")  # in the order of a record's labels


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the archive: image is uint8 (32, 32, 3).

    The key is the index in the split, with the batches in numeric order, whatever their order in the archive.

    Raises:
        UserError: the archive is corrupt or incomplete, or its class names are not `classes`.
    """
    path = single_file(folder, "*.tar.gz")
    with open_tar(path) as archive:  # whose batches are in no order
        members = {PurePosixPath(member.name).name: member for member in archive if member.isfile()}
        files = NAMES_100 if NAMES_100[1] in members else NAMES_10
        parts = [*_parts(path, members, files, "train"), *_parts(path, members, files, "test")]
        position = _position(path, archive, members, files, list(classes))
        # In the order of the archive, so that it is read from start to end.
        for split, batch, start in sorted(parts, key=lambda part: part[1].offset_data):
            for index, (labels, image) in enumerate(_records(archive, batch, len(files)), start):
                if labels[position] >= len(classes):
                    raise UserError(
                        f"{path}: {batch.name}: label {labels[position]}, but there are {len(classes)} classes; "
                        f"{DOWNLOAD_AGAIN}"
                    )
                yield split, f"{index:05d}", image, labels[position]


def _parts(
    path: Path, members: dict[str, tarfile.TarInfo], files: tuple[str, ...], split: str
) -> Iterator[tuple[str, tarfile.TarInfo, int]]:
    """Yield the split, a batch and the index of its first record, for the batches in numeric order."""
    record = len(files) + PIXELS
    if files == NAMES_100:
        names = [f"{split}.bin"]
    elif split == "test":
        names = ["test_batch.bin"]
    else:
        numbers = [int(found[1]) for name in members if (found := re.fullmatch(r"data_batch_([0-9]{1,4})\.bin", name))]
        names = [f"data_batch_{number}.bin" for number in range(1, max(numbers, default=1) + 1)]
    start = 0
    for name in names:
        if name not in members:
            raise UserError(f"{path}: {name} is missing; {DOWNLOAD_AGAIN}")
        if size := members[name].size % record:
            raise UserError(
                f"{path}: {name} is truncated: its last record has {size} of {record} bytes; {DOWNLOAD_AGAIN}"
            )
        yield split, members[name], start
        start += members[name].size // record


def _position(
    path: Path,
    archive: tarfile.TarFile,
    members: dict[str, tarfile.TarInfo],
    files: tuple[str, ...],
    classes: list[str],
) -> int:
    """Which of a record's labels has the names `classes`."""
    for position, name in enumerate(files):
        file = archive.extractfile(members[name]) if name in members else None
        if file is None:
            raise UserError(f"{path}: {name} is missing; {DOWNLOAD_AGAIN}")
        if [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()] == classes:
            return position
    raise UserError(
        f"{path}: classes in params.yaml are not the lines of {' or '.join(files)}, in their order; correct classes"
    )


def _records(
    archive: tarfile.TarFile, batch: tarfile.TarInfo, label_bytes: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the labels and images of a batch."""
    file = archive.extractfile(batch)
    assert file is not None  # a regular file
    while data := file.read(CHUNK * (label_bytes + PIXELS)):
        block = np.frombuffer(data, np.uint8).reshape(-1, label_bytes + PIXELS)
        images = block[:, label_bytes:].reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
        yield from zip(block[:, :label_bytes].tolist(), images, strict=True)
