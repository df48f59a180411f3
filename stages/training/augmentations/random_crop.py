"""Pad images on all sides and crop each at a random place to its old size."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.config.types import Positive
from stages.training.augment import Augmentation, Batch
from stages.training.augmentations._fill import Fill, channel_values
from stages.training.random import integers

if TYPE_CHECKING:
    import tensorflow as tf


def build(seed: int, *, padding: Positive, mode: Literal["reflect", "constant"], fill: Fill = 0.0) -> Augmentation:
    """Crop each image for itself.

    Args:
        seed: seeds the random numbers.
        padding: pixels on each side.
        mode: pad by reflection without repeating the border, or with a constant.
        fill: the constant, from 0 to 255: one number, or red, green and blue.
    """
    import tensorflow as tf

    def positions(size: int, shifts: "tf.Tensor") -> "tf.Tensor":
        """Where each row (or column) of a shifted image is in the original, (n, size) int32; -1: nowhere."""
        padded = np.arange(size, dtype=np.int32)
        padded = (
            np.pad(padded, padding, "reflect") if mode == "reflect" else np.pad(padded, padding, constant_values=-1)
        )
        return tf.gather(np.lib.stride_tricks.sliding_window_view(padded, size), shifts)

    def random_crop(batch: Batch) -> Batch:
        _, height, width, channels = batch.inputs.shape
        count = tf.shape(batch.inputs)[0]
        shifts = integers(seed, batch, [2 * padding + 1, 2 * padding + 1])
        rows, columns = positions(height, shifts[:, 0]), positions(width, shifts[:, 1])
        first = tf.range(count)[:, None] * (height * width) + rows * width
        # All pixels of the batch in one row: a single gather, without a padded copy of the images
        pixels = tf.reshape(batch.inputs, (-1, channels))
        if mode == "reflect":
            indices = first[:, :, None] + columns[:, None, :]
        else:  # one more pixel, the constant, stands for all outside of the images
            outside = count * height * width
            first, columns = tf.where(rows < 0, outside, first), tf.where(columns < 0, outside, columns)
            indices = tf.minimum(first[:, :, None] + columns[:, None, :], outside)
            pixels = tf.concat([pixels, channel_values(fill, channels)[None]], axis=0)
        return batch._replace(inputs=tf.reshape(tf.gather(pixels, indices), tf.shape(batch.inputs)))

    return random_crop
