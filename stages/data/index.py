"""The index of a TFRecord file: where each record begins, so that records can be read in any order.

A record is 8 bytes of length, 4 of their checksum, the data, and 4 bytes of its checksum. The lengths are read
when a split is opened, which takes about a microsecond a record, so there is no second file that could disagree.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

LENGTH, CHECKSUM = 8, 4  # bytes


def offsets(path: Path, count: int) -> np.ndarray:
    """The positions of the first `count` records of a file, in bytes, (count,) int64.

    Raises:
        ValueError: it has fewer records, or a length is corrupt.
    """
    found = np.empty(count, np.int64)
    position, size, file = 0, path.stat().st_size, os.open(path, os.O_RDONLY)
    try:
        for number in range(count):
            found[number] = position
            position += LENGTH + int.from_bytes(os.pread(file, LENGTH, position), "little") + 2 * CHECKSUM
            if position > size:
                raise ValueError(f"record {number} of {path.name} does not end in it")
    finally:
        os.close(file)
    return found


def record(path: "tf.Tensor", offset: "tf.Tensor") -> "tf.Tensor":
    """The serialized example at an offset, in a TensorFlow graph. TensorFlow verifies both checksums."""
    import tensorflow as tf

    spec: dict[str, Any] = {"output_types": [tf.string], "output_shapes": [()]}
    rest = tf.raw_ops.TFRecordDatasetV2(filenames=[path], compression_type="", buffer_size=0, byte_offsets=[offset])
    one = tf.raw_ops.TakeDataset(input_dataset=rest, count=1, **spec)
    return tf.raw_ops.DatasetToSingleElement(dataset=one, **spec)[0]
