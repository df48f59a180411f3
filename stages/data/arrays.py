"""A split of a dataset, in memory or in a temporary file, and the memory that NumPy and TensorFlow share."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

ALIGNMENT = 64  # bytes: TensorFlow shares only arrays that begin at a multiple with NumPy
BYTES_AT_ONCE = 8 << 20  # of the rows that one call reads from a file; a training holds three times as much


class Rows(NamedTuple):
    """Where a training finds the examples of some batches: the example of batches[i, j] is row positions[i, j]."""

    inputs: "tf.Tensor"  # (rows, …)
    labels: "tf.Tensor"  # (rows,) int32
    positions: np.ndarray  # (steps, batch_size) int64


@dataclass(frozen=True)
class SplitArrays:
    """A split: keys (n,), inputs (n, …) as uint8 pixels or float16 features, labels (n,) as int32.

    The inputs of a split that does not fit into memory are an `np.memmap` of a file without a name.
    """

    keys: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def rows_at_once(self) -> int:
        """How many rows one call of `rows` may take, so that memory stays bounded."""
        if not isinstance(self.inputs, np.memmap):
            return len(self)
        return max(1, BYTES_AT_ONCE * len(self) // max(1, self.inputs.nbytes))

    def rows(self, batches: np.ndarray) -> Rows:
        """The examples of some batches: of a split in memory all, which costs nothing; of one in a file only these.

        Args:
            batches: indices of the examples, (steps, batch_size) int64.
        """
        if not isinstance(self.inputs, np.memmap):
            return Rows(*self._tensors, batches)
        chosen = batches.ravel()
        inputs = aligned_empty((len(chosen), *self.inputs.shape[1:]), self.inputs.dtype)
        np.take(self.inputs, chosen, axis=0, out=inputs, mode="clip")  # the other modes copy once more
        positions = np.arange(len(chosen)).reshape(batches.shape)
        return Rows(as_tensor(inputs), as_tensor(self.labels[chosen]), positions)

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
