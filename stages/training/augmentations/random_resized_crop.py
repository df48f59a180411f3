"""Crop a random box of an image and resize it to the size of the whole (Szegedy et al., 2014)."""

from typing import Annotated

from pydantic import Field

from stages.config.types import Fraction
from stages.training.augment import Augmentation, Batch
from stages.training.random import uniform


def build(seed: int, *, scale: Fraction, ratio: Annotated[float, Field(ge=1)] = 1.0) -> Augmentation:
    """Crop each image for itself, and resize it by bilinear interpolation.

    Args:
        seed: seeds the random numbers.
        scale: the smallest area of a box as a fraction of the image; the largest is the whole image.
        ratio: the largest change of the aspect ratio, both ways: its logarithm is uniform.
    """
    import keras
    import tensorflow as tf

    def random_resized_crop(batch: Batch) -> Batch:
        _, height, width, _ = batch.inputs.shape
        area, stretch, top, left = tf.unstack(uniform(seed, batch, 4), axis=1)
        area, stretch = scale + (1 - scale) * area, ratio ** (2 * stretch - 1)
        # Sides of the box as fractions of the image, and the place of its first pixel's center
        rows = tf.minimum(tf.sqrt(area / stretch), 1.0)
        columns = tf.minimum(tf.sqrt(area * stretch), 1.0)
        from_y = top * (1 - rows) * height + (rows - 1) / 2
        from_x = left * (1 - columns) * width + (columns - 1) / 2
        zeros = tf.zeros_like(area)
        transforms = tf.stack([columns, zeros, from_x, zeros, rows, from_y, zeros, zeros], axis=1)
        return batch._replace(inputs=keras.ops.image.affine_transform(batch.inputs, transforms, fill_mode="nearest"))

    return random_resized_crop
