"""Read IDX, the format of MNIST and its successors: a gzip file of images and one of labels for each split.

A file is a big-endian header, (magic number, count) for labels and (magic number, count, rows, columns) for images,
followed by the bytes. http://yann.lecun.com/exdb/mnist/ describes it.
"""

import struct
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from stages.data.formats._archive import DOWNLOAD_AGAIN, Bounded, name_file_in_errors, open_gzip
from stages.runtime.errors import UserError

PREFIX = {"train": "train", "test": "t10k"}
IMAGES, LABELS = 0x0803, 0x0801  # magic numbers: unsigned bytes (08) with three dimensions or one
MAX_SIDE = 4096  # pixels; a header with more is corrupt
CHUNK = 1 << 20  # bytes that are read at once


def examples(folder: Path, classes: list[str] | dict[str, str]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Yield (split, key, image, label) in the order of the files: key is the index, image uint8 (rows, columns, 1).

    Raises:
        UserError: a file is missing, corrupt, truncated or too long, or contradicts another one.
    """
    size = None
    for split in PREFIX:
        size = yield from _examples(folder, split, len(classes), size)


def _examples(
    folder: Path, split: str, classes: int, size: tuple[int, int] | None
) -> Generator[tuple[str, str, np.ndarray, int], None, tuple[int, int]]:
    """Yield the examples of a split and return the size of their images, which must be `size` unless that is None."""
    images_path = folder / f"{PREFIX[split]}-images-idx3-ubyte.gz"
    labels_path = folder / f"{PREFIX[split]}-labels-idx1-ubyte.gz"
    with open_gzip(images_path) as images, open_gzip(labels_path) as labels:
        count, rows, columns = _header(images, images_path, IMAGES)
        (label_count,) = _header(labels, labels_path, LABELS)
        if count != label_count:
            raise UserError(
                f"{labels_path}: {label_count} labels for {count} images in {images_path.name}; {DOWNLOAD_AGAIN}"
            )
        if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
            raise UserError(f"{images_path}: images of {rows} x {columns} pixels; {DOWNLOAD_AGAIN}")
        if size and size != (rows, columns):
            sizes = f"{rows} x {columns} pixels, but of {size[0]} x {size[1]} in the other split"
            raise UserError(f"{images_path}: images of {sizes}; {DOWNLOAD_AGAIN}")
        step = max(1, CHUNK // (rows * columns))
        for start in range(0, count, step):
            number = min(step, count - start)
            pixels = np.frombuffer(_read_exactly(images, number * rows * columns, images_path), np.uint8)
            block = pixels.reshape(number, rows, columns, 1)
            for index, label in enumerate(_read_exactly(labels, number, labels_path)):
                if label >= classes:
                    raise UserError(
                        f"{labels_path}: label {label} at index {start + index}, but params.yaml has only {classes} "
                        "classes; correct classes or the file"
                    )
                yield split, f"{start + index:05d}", block[index], label
        for stream, path in ((images, images_path), (labels, labels_path)):
            if _read(stream, 1, path):
                raise UserError(
                    f"{path}: it has more bytes than the {count} examples that its header announces; {DOWNLOAD_AGAIN}"
                )
    return rows, columns


def _header(stream: Bounded, path: Path, magic: int) -> tuple[int, ...]:
    """Read the magic number and the dimensions after it; the number's last byte is their count."""
    (found,) = struct.unpack(">I", _read_exactly(stream, 4, path))
    if found != magic:
        raise UserError(
            f"{path}: magic number {found} instead of {magic}: not this kind of IDX file; correct its mirrors in "
            "params.yaml"
        )
    dimensions = magic & 0xFF
    return struct.unpack(f">{dimensions}I", _read_exactly(stream, 4 * dimensions, path))


def _read_exactly(stream: Bounded, size: int, path: Path) -> bytes:
    data = _read(stream, size, path)
    if len(data) < size:
        raise UserError(f"{path}: truncated: it has fewer examples than its header announces; {DOWNLOAD_AGAIN}")
    return data


def _read(stream: Bounded, size: int, path: Path) -> bytes:
    with name_file_in_errors(path):  # two files are open, and `open_gzip` would name the one that was opened last
        return stream.read(size)
