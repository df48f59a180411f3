"""Crop and resize images: the only place, for training, evaluation and prediction alike."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def crop_and_resize(image: "tf.Tensor", size: int) -> "tf.Tensor":
    """Crop the centered square of an image (height, width, channels) and resize it to `size`; uint8 to uint8."""
    import tensorflow as tf

    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    image = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
    image = tf.image.resize(image, (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
