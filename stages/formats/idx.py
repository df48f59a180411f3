"""IDX, the format of MNIST and its successors: a gzip file of images and one of labels for each split.

A file is a big-endian header, (magic number, count) for labels and (magic number, count, rows, columns) for images,
and then the bare bytes. http://yann.lecun.com/exdb/mnist/ describes it.
"""

import struct
from collections.abc import Generator, Iterator
from gzip import GzipFile
from pathlib import Path

import numpy as np

from stages.console import UserError
from stages.formats._archive import AGAIN, naming, unpacked

PREFIX = {"train": "train", "test": "t10k"}
IMAGES, LABELS = 0x0803, 0x0801  # unsigned bytes (08) in three dimensions, in one
LARGEST = 4096  # pixels a side; more is a header that is not one
CHUNK = 1 << 20  # bytes that are read at once


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the files: image is uint8 (rows, columns, 1), key the index.

    Raises:
        UserError: a file is missing, damaged, truncated or too long, or two disagree.
    """
    size = None
    for split in PREFIX:
        size = yield from _examples(folder, split, len(classes), size)


def _examples(
    folder: Path, split: str, classes: int, size: tuple[int, int] | None
) -> Generator[tuple[str, str, np.ndarray, int], None, tuple[int, int]]:
    """Yield the examples of a split, whose images are of this size; return it, or theirs where there is none."""
    images_path = folder / f"{PREFIX[split]}-images-idx3-ubyte.gz"
    labels_path = folder / f"{PREFIX[split]}-labels-idx1-ubyte.gz"
    with unpacked(images_path) as images, unpacked(labels_path) as labels:
        count, rows, columns = _header(images, images_path, IMAGES)
        (label_count,) = _header(labels, labels_path, LABELS)
        if count != label_count:
            raise UserError(f"{labels_path}: {label_count} labels for {count} images in {images_path.name}; {AGAIN}")
        if not (0 < rows <= LARGEST and 0 < columns <= LARGEST):
            raise UserError(f"{images_path}: images of {rows} x {columns} pixels; {AGAIN}")
        if size and size != (rows, columns):
            raise UserError(
                f"{images_path}: images of {rows} x {columns} pixels, others of {size[0]} x {size[1]}; {AGAIN}"
            )
        step = max(1, CHUNK // (rows * columns))
        for start in range(0, count, step):
            number = min(step, count - start)
            pixels = np.frombuffer(_exactly(images, number * rows * columns, images_path), np.uint8)
            block = pixels.reshape(number, rows, columns, 1)
            for index, label in enumerate(_exactly(labels, number, labels_path)):
                if label >= classes:
                    raise UserError(
                        f"{labels_path}: label {label} at index {start + index}, but classes in params.yaml has only "
                        f"{classes}; correct classes or the file"
                    )
                yield split, f"{start + index:05d}", block[index], label
        for stream, path in ((images, images_path), (labels, labels_path)):
            if _read(stream, 1, path):
                raise UserError(f"{path}: more bytes than the {count} examples its header announces; {AGAIN}")
    return rows, columns


def _header(stream: GzipFile, path: Path, magic: int) -> tuple[int, ...]:
    """The dimensions that follow the magic number, whose last byte says how many they are."""
    (found,) = struct.unpack(">I", _exactly(stream, 4, path))
    if found != magic:
        raise UserError(f"{path}: magic number {found}, not {magic}: not this kind of IDX file; correct its source")
    dimensions = magic & 0xFF
    return struct.unpack(f">{dimensions}I", _exactly(stream, 4 * dimensions, path))


def _exactly(stream: GzipFile, size: int, path: Path) -> bytes:
    data = _read(stream, size, path)
    if len(data) < size:
        raise UserError(f"{path}: truncated: ends before the examples its header announces; {AGAIN}")
    return data


def _read(stream: GzipFile, size: int, path: Path) -> bytes:
    with naming(path):  # two files are open: `unpacked` alone would blame the one that was opened last
        return stream.read(size)
