"""Mixup: blend images and their labels in pairs (Zhang et al., 2017)."""

from typing import Annotated

from pydantic import Field

from stages.training.augment import Augmentation, Batch, target_probabilities
from stages.training.random import beta


def build(seed: int, *, alpha: Annotated[float, Field(gt=0, le=1)]) -> Augmentation:
    """Blend each image with its neighbor in the batch, whose order is random in every epoch.

    On several devices, the neighbor is on the same device.

    Args:
        seed: seeds the random numbers.
        alpha: parameter of Beta(alpha, alpha), from which each image's own share is drawn.
    """
    import tensorflow as tf

    def mixup(batch: Batch) -> Batch:
        share = beta(seed, batch, alpha)[:, None]

        def blend(values: tf.Tensor) -> tf.Tensor:
            rows = tf.reshape(values, (tf.shape(values)[0], -1))  # two dimensions are broadcast fastest
            return tf.reshape(share * rows + (1 - share) * tf.roll(rows, 1, axis=0), tf.shape(values))

        return batch._replace(inputs=blend(batch.inputs), targets=blend(target_probabilities(batch)))

    return mixup
