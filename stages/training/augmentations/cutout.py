"""Cutout: erase a square of every image (DeVries and Taylor, 2017)."""

from stages.config.types import Positive
from stages.training.augment import Augmentation, Batch
from stages.training.augmentations._boxes import inside_boxes
from stages.training.augmentations._fill import Fill, channel_values
from stages.training.random import integers


def build(seed: int, *, size: Positive, fill: Fill = 0.0) -> Augmentation:
    """Erase a square at a random place. It lies wholly inside the image.

    Args:
        seed: seeds the random numbers.
        size: the side of the square in pixels.
        fill: its new pixels, from 0 to 255: one number, or red, green and blue.
    """
    import tensorflow as tf

    def cutout(batch: Batch) -> Batch:
        _, height, width, channels = batch.inputs.shape
        rows, columns = min(size, height), min(size, width)
        top, left = tf.unstack(integers(seed, batch, [height - rows + 1, width - columns + 1]), axis=1)
        erased = inside_boxes(top, left, top + rows, left + columns, batch.inputs)
        constant = tf.zeros_like(batch.inputs) + channel_values(fill, channels)
        return batch._replace(inputs=tf.where(erased, constant, batch.inputs))

    return cutout
