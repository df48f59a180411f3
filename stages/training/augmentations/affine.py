"""Rotate, shift and zoom an image in one step, which resamples its pixels only once."""

from math import pi
from typing import Annotated

from pydantic import Field

from stages.training.augment import Augmentation, Batch
from stages.training.random import uniform

Range = Annotated[float, Field(ge=0, lt=1)]


def build(seed: int, *, rotation: Range = 0.0, translation: Range = 0.0, zoom: Range = 0.0) -> Augmentation:
    """Transform each image around its center; pixels from outside repeat the border.

    Args:
        seed: seeds the random numbers.
        rotation: the largest angle as a fraction of a full turn, both ways.
        translation: the largest shift as a fraction of height and width, both ways, each axis for itself.
        zoom: the largest change of the scale 1, both ways, each axis for itself.
    """
    import tensorflow as tf

    def affine(batch: Batch) -> Batch:
        _, height, width, _ = batch.inputs.shape
        turn, shift_y, shift_x, zoom_y, zoom_x = tf.unstack(2 * uniform(seed, batch, 5) - 1, axis=1)
        angle = 2 * pi * rotation * turn
        scale_y, scale_x = 1 + zoom * zoom_y, 1 + zoom * zoom_x
        shift_y, shift_x = translation * height * shift_y, translation * width * shift_x
        sine, cosine = tf.sin(angle), tf.cos(angle)
        # Where the pixel (x, y) of the result comes from: (x, y) from the center, zoomed, shifted and rotated
        center_y, center_x = (height - 1) / 2, (width - 1) / 2
        from_x, from_y = shift_x - scale_x * center_x, shift_y - scale_y * center_y  # of the pixel (0, 0)
        zeros = tf.zeros_like(angle)
        transforms = tf.stack(
            [
                *(cosine * scale_x, -sine * scale_y, cosine * from_x - sine * from_y + center_x),
                *(sine * scale_x, cosine * scale_y, sine * from_x + cosine * from_y + center_y),
                *(zeros, zeros),
            ],
            axis=1,
        )
        inputs = tf.raw_ops.ImageProjectiveTransformV3(
            images=batch.inputs,
            transforms=transforms,
            output_shape=(height, width),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        return batch._replace(inputs=inputs)

    return affine
