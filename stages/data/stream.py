"""A split that does not fit into memory: examples are read in any order, by the index of their records.

What was decoded once is kept in a temporary file if the disk has room for it: decoding an image often takes longer than
training on it. The file has no name, so nothing is left of it, however the process ends.

The import of the reader takes a second: import this module after the configuration has been checked.
"""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import tensorflow_datasets as tfds

from stages.data import index, reader
from stages.data.arrays import Rows, SplitArrays, aligned_empty, as_tensor
from stages.runtime import paths
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import tensorflow as tf

GIB = 2**30
BYTES_AT_ONCE = 8 << 20  # of the rows that one call reads; a training holds three times as much
PARALLEL = 16  # examples that are read and decoded at the same time, more than cores: some wait for the disk
DISK_SHARE = 0.5  # of the free space that the temporary file may take
SHARDS_AT_ONCE = 8


def open_split(name: str, split: str, image_size: int | None, memory: float) -> "Split":
    """Open a split for a training: in memory if its inputs fit, otherwise streamed. The results are the same.

    Args:
        name: of the dataset.
        split: in the syntax of TFDS.
        image_size: as in `stages.data.reader.read`.
        memory: GiB that the inputs of the split may take.

    Raises:
        UserError: as in `stages.data.reader.load`.
    """
    count = reader.info(name).splits[split].num_examples
    shape, dtype = reader.input_spec(name, split, image_size)
    size = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= memory * GIB:
        return reader.load(name, split, image_size)
    print(f"{name}: {split} takes {size / GIB:.3g} GiB, more than `memory` in params.yaml: streaming", flush=True)
    return StreamedSplit(name, split, image_size)


class StreamedSplit:
    """A split on disk with the interface of `SplitArrays`, without keys. One thread at a time may use it."""

    def __init__(self, name: str, split: str, image_size: int | None) -> None:
        """Find the records of a split.

        Raises:
            UserError: the records are missing or corrupt, or the images need an image_size.
        """
        self._name, self._split, self._image_size = name, split, image_size
        self._shape, self._dtype = reader.input_spec(name, split, image_size)
        self._shards, self._numbers, self._offsets = _index(name, split)
        self._labels = np.full(len(self), -1, np.int32)  # until an example has been read
        self._kept = np.zeros(len(self), bool)  # in the temporary file
        self._row_bytes = int(np.prod(self._shape)) * np.dtype(self._dtype).itemsize
        self._file = _temporary_file(len(self) * self._row_bytes)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._offsets)

    @property
    def inputs(self) -> "StreamedInputs":
        """All inputs; only what is asked for is read."""
        return StreamedInputs(self, (len(self), *self._shape), np.dtype(self._dtype))

    @property
    def labels(self) -> np.ndarray:
        """All labels, (n,) int32. The first call reads the whole split, but decodes no image."""
        if (self._labels < 0).any():
            start = 0
            for batch in reader.batches(self._name, self._split, reader.LOAD_BATCH, decode=False):
                self._labels[start : start + len(batch["label"])] = batch["label"]
                start += len(batch["label"])
        return self._labels

    @property
    def rows_at_once(self) -> int:
        """How many rows one call of `rows` may take, so that memory stays bounded."""
        return max(1, BYTES_AT_ONCE // self._row_bytes)

    def rows(self, batches: np.ndarray) -> Rows:
        """Read the examples of some batches.

        Args:
            batches: indices of the examples, (steps, batch_size) int64.

        Raises:
            UserError: a record is corrupt, or an image cannot be decoded.
        """
        positions = np.arange(batches.size).reshape(batches.shape)
        inputs = aligned_empty((batches.size, *self._shape), self._dtype)
        self.read(batches.ravel(), inputs, positions.ravel())
        return Rows(as_tensor(inputs), as_tensor(self._labels[batches.ravel()]), positions)

    def read(self, indices: np.ndarray, target: np.ndarray, positions: np.ndarray) -> None:
        """Read the inputs of examples into the rows `positions` of `target`; errors as in `rows`."""
        kept = self._kept[indices]
        for number, position in zip(indices[kept], positions[kept], strict=True):
            self._get(number, target[position])
        count = max(PARALLEL, min(reader.LOAD_BATCH, self.rows_at_once // 4))
        missing = np.flatnonzero(~kept)
        for start in range(0, len(missing), count):
            chosen = missing[start : start + count]
            target[positions[chosen]], self._labels[indices[chosen]] = self._decode(indices[chosen])
            for number, position in zip(indices[chosen], positions[chosen], strict=True):
                self._put(number, target[position])

    def _decode(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels from the records."""
        import tensorflow as tf

        try:
            found = self._decoder(self._numbers[indices], self._offsets[indices])
        except tf.errors.OpError as error:
            raise reader.read_error(self._name, self._split, error) from None
        return found[0].numpy(), found[1].numpy()

    @cached_property
    def _decoder(self) -> Any:
        """A graph that reads examples in parallel, with the operations of `reader.read`."""
        import tensorflow as tf

        features = tfds.builder_from_directory(paths.records(self._name)).info.features
        shards = tf.constant(self._shards)

        fit = reader.fit(self._name)

        def example(number: "tf.Tensor", offset: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
            found = features.deserialize_example(index.record(shards[number], offset))
            size = self._image_size
            inputs = found["input"] if size is None else reader.resize(found["input"], size, fit)
            return inputs, tf.cast(found["label"], tf.int32)

        def examples(numbers: "tf.Tensor", offsets: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
            found = tf.data.Dataset.from_tensor_slices((numbers, offsets)).map(example, PARALLEL, deterministic=True)
            return found.batch(tf.size(offsets, tf.int64)).get_single_element()

        with tf.device("cpu"):
            specs = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64)
            return tf.function(examples, autograph=False).get_concrete_function(*specs)

    def _get(self, number: int, row: np.ndarray) -> None:
        assert self._file is not None
        if os.preadv(self._file.fileno(), [row.data], int(number) * self._row_bytes) != self._row_bytes:
            raise OSError(f"{paths.DECODED}: a temporary file was cut")

    def _put(self, number: int, row: np.ndarray) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # no space left: what is not in the file is decoded each time
            written = os.pwrite(self._file.fileno(), row.data, int(number) * self._row_bytes)
            self._kept[number] = written == self._row_bytes


class StreamedInputs:
    """The inputs of a streamed split, for slices of `[start:stop]`; for the rest like an array."""

    def __init__(self, split: StreamedSplit, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._split, self.shape, self.dtype = split, shape, dtype

    def __len__(self) -> int:
        """Number of examples."""
        return self.shape[0]

    def __getitem__(self, chosen: slice) -> np.ndarray:
        """Read some inputs."""
        indices = np.arange(*chosen.indices(len(self)))
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        self._split.read(indices, found, np.arange(len(indices)))
        return found


Split = SplitArrays | StreamedSplit


def _index(name: str, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The shards of a split; of each example, the number of its shard, int32, and its offset, int64."""
    parts = reader.info(name).splits[split].file_instructions

    def scan(part: Any) -> np.ndarray:
        stop = part.examples_in_shard if part.take < 0 else part.skip + part.take
        return index.offsets(Path(part.filename), stop)[part.skip :]

    try:
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            found = list(progress(pool.map(scan, parts), len(parts), f"{name}: index of {split}", "shards"))
    except ValueError as error:
        raise reader.corrupt(name, f"split {split!r}: {error}") from None
    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(offsets) for offsets in found])
    return [str(part.filename) for part in parts], numbers, np.concatenate(found)


def _temporary_file(size: int) -> BinaryIO | None:
    """A file without a name; None if it would take too much of the free space."""
    paths.DECODED.mkdir(parents=True, exist_ok=True)
    if size > DISK_SHARE * shutil.disk_usage(paths.DECODED).free:
        return None
    return tempfile.TemporaryFile(dir=paths.DECODED, buffering=0)
