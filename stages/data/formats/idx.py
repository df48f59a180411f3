"""Read IDX, the format of MNIST and its successors: a gzip file of images and one of labels for each split.

A file is a big-endian header, (magic number, count) for labels and (magic number, count, rows, columns) for images,
followed by the bytes. http://yann.lecun.com/exdb/mnist/ describes it.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, open_gzip
from stages.runtime.errors import UserError

PREFIX = {"train": "train", "test": "t10k"}
IMAGES, LABELS = 0x0803, 0x0801  # magic numbers: unsigned bytes (08) with three dimensions or one


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the files: key is the index, image uint8 (rows, columns, 1).

    Raises:
        UserError: a file is missing, corrupt, truncated or too long, or contradicts another one.
    """
    for split, prefix in PREFIX.items():
        images_path = folder / f"{prefix}-images-idx3-ubyte.gz"
        labels_path = folder / f"{prefix}-labels-idx1-ubyte.gz"
        images, labels = _read(images_path, IMAGES), _read(labels_path, LABELS)
        if len(images) != len(labels):
            raise UserError(
                f"{labels_path}: {len(labels)} labels for {len(images)} images in {images_path.name}; {DOWNLOAD_AGAIN}"
            )
        for index, (image, label) in enumerate(zip(images[..., np.newaxis], labels.tolist(), strict=True)):
            yield split, f"{index:05d}", image, label


def _read(path: Path, magic: int) -> np.ndarray:
    """The array of a file, uint8; the last byte of the magic number is the number of its dimensions."""
    with open_gzip(path) as stream:
        data = stream.read()
    header = f">{1 + (magic & 0xFF)}I"
    start = struct.calcsize(header)
    found, *shape = struct.unpack(header, data[:start].ljust(start, b"\0"))
    if data and found != magic:
        raise UserError(
            f"{path}: magic number {found} instead of {magic}: not this kind of IDX file; correct its mirrors in "
            "params.yaml"
        )
    if len(data) != start + math.prod(shape):
        what = "truncated: it has fewer" if len(data) < start + math.prod(shape) else "it has more"
        raise UserError(f"{path}: {what} examples than its header announces; {DOWNLOAD_AGAIN}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
