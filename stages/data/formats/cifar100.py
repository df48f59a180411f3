"""Read CIFAR-100's binary version: a tar.gz of train.bin and test.bin, whose records have two labels.

A record is a byte with the label of one of 20 superclasses ("coarse"), a byte with that of one of 100 classes ("fine"),
and 3 × 1024 pixel bytes: https://www.cs.toronto.edu/~kriz/cifar.html. Which labels are used follows from `classes`.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, open_gzip, open_tar, regular_files, single_file
from stages.runtime.errors import UserError

SHAPE = (3, 32, 32)  # channels, rows, columns
RECORD = 2 + 3 * 32 * 32  # bytes
CHUNK = 256  # records that are read at once
SPLITS = {"train.bin": "train", "test.bin": "test"}
NAMES = ("coarse_label_names.txt", "fine_label_names.txt")  # in the order of a record's labels


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the archive: key is the index, image uint8 (32, 32, 3).

    Raises:
        UserError: the archive is corrupt or incomplete, or `classes` are neither its fine nor its coarse names.
    """
    path = single_file(folder, "*.tar.gz")
    with open_gzip(path) as stream, open_tar(stream, "r:") as archive:
        members = {PurePosixPath(member.name).name: member for member in regular_files(archive, path)}
        if missing := [name for name in (*SPLITS, *NAMES) if name not in members]:
            raise UserError(f"{path}: {missing[0]} is missing; {DOWNLOAD_AGAIN}")
        known = [_lines(archive.extractfile(members[name])) for name in NAMES]
        if list(classes) not in known:
            counts = " nor ".join(f"the {len(names)} of {file}" for names, file in zip(known, NAMES, strict=True))
            raise UserError(f"{path}: classes in params.yaml are neither {counts}, in their order; correct classes")
        position = known.index(list(classes))
        for name, split in sorted(SPLITS.items(), key=lambda item: members[item[0]].offset_data):
            if size := members[name].size % RECORD:
                raise UserError(
                    f"{path}: {name} is truncated: its last record has {size} of {RECORD} bytes; {DOWNLOAD_AGAIN}"
                )
            for index, (label, image) in enumerate(_records(archive.extractfile(members[name]), position)):
                if label >= len(classes):
                    raise UserError(
                        f"{path}: {name}: label {label}, but there are {len(classes)} classes; {DOWNLOAD_AGAIN}"
                    )
                yield split, f"{index:05d}", image, label


def _lines(file: object) -> list[str]:
    text = file.read().decode(errors="replace")  # type: ignore[attr-defined]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _records(file: object, position: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the labels at a position of the records, and their images."""
    while data := file.read(CHUNK * RECORD):  # type: ignore[attr-defined]
        block = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        yield from zip(block[:, position].tolist(), block[:, 2:].reshape(-1, *SHAPE).transpose(0, 2, 3, 1), strict=True)
