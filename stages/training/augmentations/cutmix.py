"""CutMix: paste a box of another image, and mix the labels by area (Yun et al., 2019)."""

from typing import Annotated

from pydantic import Field

from stages.training.augment import Augmentation, Batch, target_probabilities
from stages.training.augmentations._boxes import inside_boxes
from stages.training.random import beta, uniform


def build(seed: int, *, alpha: Annotated[float, Field(gt=0, le=1)]) -> Augmentation:
    """Paste a box of each image's neighbor in the batch, whose order is random in every epoch.

    On several devices, the neighbor is on the same device.

    Args:
        seed: seeds the random numbers.
        alpha: parameter of Beta(alpha, alpha), from which the area outside of the box is drawn. The box is
            centered on a random pixel, and what lies outside of the image is cut off.
    """
    import tensorflow as tf

    def bounds(size: int, center: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The first position of the box on an axis, and the one after the last."""
        length = tf.cast(side * size, tf.int32)
        start = tf.cast(center * size, tf.int32) - length // 2
        return tf.maximum(start, 0), tf.minimum(start + length, size)

    def cutmix(batch: Batch) -> Batch:
        images, targets = batch.inputs, target_probabilities(batch)
        _, height, width, _ = images.shape
        side = tf.sqrt(1 - beta(seed, batch, alpha))
        centers = uniform(seed + 2**31, batch, 2)  # other numbers than those of `beta`
        top, bottom = bounds(height, centers[:, 0], side)
        left, right = bounds(width, centers[:, 1], side)
        pasted = inside_boxes(top, left, bottom, right, images)
        share = (tf.cast((bottom - top) * (right - left), tf.float32) / (height * width))[:, None]
        return batch._replace(
            inputs=tf.where(pasted, tf.roll(images, 1, axis=0), images),
            targets=(1 - share) * targets + share * tf.roll(targets, 1, axis=0),
        )

    return cutmix
