"""Read the binary versions of CIFAR-10 and CIFAR-100: a tar.gz of batches of records, label bytes and 3 x 1024 pixels.

https://www.cs.toronto.edu/~kriz/cifar.html describes it. The Python version is a pickle, which runs code when read. A
record of CIFAR-100 has two labels, one of 20 superclasses and one of 100 classes: `classes` says which are used.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, open_tar, single_file
from stages.runtime.errors import UserError

SHAPE = (3, 32, 32)  # channels, rows, columns
PIXELS = 3 * 32 * 32  # bytes
CHUNK = 256  # records that are read at once
BATCHES_10 = {**{f"data_batch_{number}.bin": "train" for number in range(1, 6)}, "test_batch.bin": "test"}
BATCHES_100 = {"train.bin": "train", "test.bin": "test"}
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
        files, batches = (NAMES_100, BATCHES_100) if NAMES_100[1] in members else (NAMES_10, BATCHES_10)
        if missing := [name for name in (*files, *batches) if name not in members]:
            raise UserError(f"{path}: {missing[0]} is missing; {DOWNLOAD_AGAIN}")

        def read(name: str, size: int = -1) -> Iterator[bytes]:
            with archive.extractfile(members[name]) as file:  # type: ignore[union-attr]  # a regular file
                while data := file.read(size):
                    yield data

        texts = [b"".join(read(name)).decode(errors="replace") for name in files]
        names = [[line.strip() for line in text.splitlines() if line.strip()] for text in texts]
        if list(classes) not in names:
            raise UserError(
                f"{path}: classes in params.yaml are not the lines of {' or '.join(files)}, in their order; correct "
                "classes"
            )
        record, sizes, starts = len(files) + PIXELS, Counter[str](), {}
        for name, split in batches.items():
            starts[name] = sizes[split]
            count, rest = divmod(members[name].size, record)
            if rest:
                raise UserError(
                    f"{path}: {name} is truncated: its last record has {rest} of {record} bytes; {DOWNLOAD_AGAIN}"
                )
            sizes[split] += count
        # In the order of the archive, so that it is read from start to end
        for name in sorted(batches, key=lambda name: members[name].offset_data):
            for data in read(name, CHUNK * record):
                block = np.frombuffer(data, np.uint8).reshape(-1, record)
                labels = block[:, names.index(list(classes))].tolist()
                images = block[:, len(files) :].reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
                for image, label in zip(images, labels, strict=True):
                    yield batches[name], f"{starts[name]:05d}", image, label
                    starts[name] += 1
