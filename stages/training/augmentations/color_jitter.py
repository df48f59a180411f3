"""Change brightness, contrast and saturation of an image."""

from stages.config.types import Share
from stages.training.augment import Augmentation, Batch
from stages.training.random import uniform


def build(seed: int, *, brightness: Share = 0.0, contrast: Share = 0.0, saturation: Share = 0.0) -> Augmentation:
    """Multiply the pixels, their distance from the image's mean, and their distance from gray, each image for itself.

    Args:
        seed: seeds the random numbers.
        brightness: the largest change of the first multiplier 1, both ways.
        contrast: the largest change of the second.
        saturation: the largest change of the third; gray is the mean of a pixel's channels.
    """
    import tensorflow as tf

    def color_jitter(batch: Batch) -> Batch:
        _, height, width, channels = batch.inputs.shape
        factors = 1 + tf.constant([brightness, contrast, saturation]) * (2 * uniform(seed, batch, 3) - 1)
        bright, sharp, colorful = tf.unstack(factors[:, :, None, None], axis=1)
        pixels = tf.reshape(batch.inputs, (-1, height * width, channels))
        mean = tf.reduce_mean(pixels, axis=(1, 2), keepdims=True)
        mix = sharp * (colorful * tf.eye(channels) + (1 - colorful) / channels)  # of the channels, with those of gray
        pixels = tf.clip_by_value(bright * (tf.matmul(pixels, mix) + (1 - sharp) * mean), 0.0, 255.0)
        return batch._replace(inputs=tf.reshape(pixels, tf.shape(batch.inputs)))

    return color_jitter
