"""Random erasing: fill squares of every image with noise (Zhong et al., 2017)."""

from stages.config.types import Positive
from stages.training.augment import Augmentation, Batch
from stages.training.random import normal, uniform


def build(seed: int, *, size: Positive, max_squares: Positive) -> Augmentation:
    """Erase 0 to `max_squares` squares of each image, which lie wholly inside it.

    The noise is normal, with the mean and the standard deviation of all pixels of the batch, and clipped to pixels.

    Args:
        seed: seeds the random numbers.
        size: the side of a square in pixels.
        max_squares: the largest number of squares; each number from 0 on has the same probability.
    """
    import tensorflow as tf

    def random_erasing(batch: Batch) -> Batch:
        images = batch.inputs
        _, height, width, channels = images.shape
        count, rows, columns = tf.shape(images)[0], min(size, height), min(size, width)
        num_places = 1 + 2 * max_squares
        numbers = uniform(seed, batch, num_places + max_squares * rows * columns * channels)
        squares = tf.cast(numbers[:, 0] * (max_squares + 1), tf.int32)
        tops = tf.cast(numbers[:, 1:num_places:2] * (height - rows + 1), tf.int32)
        lefts = tf.cast(numbers[:, 2:num_places:2] * (width - columns + 1), tf.int32)
        mean, deviation = _mean_and_deviation(images)
        noise = tf.clip_by_value(mean + deviation * normal(numbers[:, num_places:]), 0.0, 255.0)
        noise = tf.reshape(noise, (count, max_squares, rows * columns, channels))
        # Only the pixels of the squares are read and written, by their positions in the batch as one row of pixels
        square = tf.reshape(tf.range(rows)[:, None] * width + tf.range(columns), (-1,))
        pixels = tf.reshape(images, (-1, channels))
        for number in range(max_squares):
            corners = (tf.range(count) * height + tops[:, number]) * width + lefts[:, number]
            places = corners[:, None] + square
            erased = (number < squares)[:, None, None]
            values = tf.where(erased, noise[:, number], tf.gather(pixels, places))
            pixels = tf.tensor_scatter_nd_update(pixels, places[:, :, None], values)
        return batch._replace(inputs=tf.reshape(pixels, tf.shape(images)))

    def _mean_and_deviation(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of the pixels of the batch, on all devices."""
        sums = [tf.cast(tf.size(images), tf.float32), tf.reduce_sum(images), tf.reduce_sum(images**2)]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            sums = [context.all_reduce(tf.distribute.ReduceOp.SUM, each) for each in sums]
        mean = sums[1] / sums[0]
        return mean, tf.sqrt(tf.maximum(sums[2] / sums[0] - mean**2, 0.0))

    return random_erasing
