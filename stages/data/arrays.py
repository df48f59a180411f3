"""A split of a dataset in memory, and the memory that NumPy and TensorFlow share."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

ALIGNMENT = 64  # bytes: TensorFlow shares only arrays that begin at a multiple with NumPy


class Rows(NamedTuple):
    """Where a training finds the examples of some batches: the example of batches[i, j] is row positions[i, j]."""

    inputs: "tf.Tensor"  # (rows, …)
    labels: "tf.Tensor"  # (rows,) int32
    positions: np.ndarray  # (steps, batch_size) int64


@dataclass(frozen=True)
class SplitArrays:
    """A split in memory: keys (n,), inputs (n, …) as uint8 pixels or float16 features, labels (n,) as int32."""

    keys: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def rows_at_once(self) -> int:
        """How many rows one call of `rows` may take."""
        return len(self)

    def rows(self, batches: np.ndarray) -> Rows:
        """The whole split, which costs nothing; arguments as in `stages.data.stream.StreamedSplit.rows`."""
        return Rows(*self._tensors, batches)

    @cached_property
    def _tensors(self) -> "tuple[tf.Tensor, tf.Tensor]":
        return as_tensor(self.inputs), as_tensor(self.labels)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array without values that `as_tensor` does not copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def as_tensor(array: np.ndarray) -> "tf.Tensor":
    """The array as a tensor in this machine's memory, the same memory if it is aligned."""
    import tensorflow as tf

    with tf.device("cpu"):
        if array.ctypes.data % ALIGNMENT or not (array.flags.c_contiguous and array.flags.writeable):
            return tf.constant(array)
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
