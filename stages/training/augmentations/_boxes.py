"""Boxes in images, for augmentations that erase or exchange a part of each image."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def inside_boxes(
    top: "tf.Tensor", left: "tf.Tensor", bottom: "tf.Tensor", right: "tf.Tensor", images: "tf.Tensor"
) -> "tf.Tensor":
    """Whether each number of each image lies in the image's box; bool in the shape of `images`.

    Args:
        top: (n,) int32: first row of the box of each image.
        left: likewise, first column.
        bottom: likewise, the row after the last.
        right: likewise, the column after the last.
        images: (n, height, width, channels).
    """
    import tensorflow as tf

    _, height, width, channels = images.shape
    rows, columns = tf.range(height), tf.repeat(tf.range(width), channels)
    in_rows = tf.logical_and(rows >= top[:, None], rows < bottom[:, None])
    in_columns = tf.logical_and(columns >= left[:, None], columns < right[:, None])
    # With three dimensions, because TensorFlow broadcasts four of them several times slower
    inside = tf.logical_and(in_rows[:, :, None], in_columns[:, None, :])
    return tf.reshape(inside, tf.shape(images))
