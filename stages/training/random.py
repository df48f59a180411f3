"""Stateless random numbers of images, for augmentations.

Each number is a hash of the seed, the epoch, the index of the image in the training data and the number's place. So it
needs no state that a checkpoint would have to keep, and does not depend on how images are split into batches and over
devices.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

    from stages.training.augment import Batch

BITS = 2**32 - 1
MULTIPLIER = 0x45D9F3B  # below 2^31: the product with a number of 32 bits fits into int64
STRIDE = 0x9E3779B9  # 2^32 divided by the golden ratio: neighboring places differ in many bits
ATTEMPTS = 32  # of rejection sampling; all of them fail for one image in 2^32


def uniform(seed: int, batch: "Batch", count: int) -> "tf.Tensor":
    """Draw `count` numbers from [0, 1) for each image, (n, count) float32."""
    import tensorflow as tf

    state = _mix(_mix(tf.constant(seed & BITS, tf.int64)) ^ (batch.epoch & BITS))
    state = _mix(state ^ (batch.indices & BITS))
    numbers = _mix((state[:, None] + STRIDE * tf.range(1, count + 1, dtype=tf.int64)) & BITS)
    # As many bits as a float32 has
    return tf.cast(tf.bitwise.right_shift(numbers, tf.constant(8, tf.int64)), tf.float32) * 2.0**-24


def integers(seed: int, batch: "Batch", bounds: list[int]) -> "tf.Tensor":
    """Draw an integer from 0 to below each of `bounds` for each image, (n, len(bounds)) int32."""
    import tensorflow as tf

    return tf.cast(uniform(seed, batch, len(bounds)) * tf.constant(bounds, tf.float32), tf.int32)


def beta(seed: int, batch: "Batch", alpha: float) -> "tf.Tensor":
    """Draw a number from the distribution Beta(alpha, alpha) for each image, (n,) float32; alpha is at most 1.

    Jöhnk's method: x / (x + y) of the first pair x = u^(1/alpha), y = v^(1/alpha) with x + y ≤ 1. It works with
    logarithms, because x and y may be too small for a float32.
    """
    import tensorflow as tf

    logarithms = tf.math.log(_open(uniform(seed, batch, 2 * ATTEMPTS))) / alpha
    x, y = logarithms[:, :ATTEMPTS], logarithms[:, ATTEMPTS:]
    larger = tf.maximum(x, y)
    total = larger + tf.math.log1p(tf.exp(tf.minimum(x, y) - larger))
    first = tf.argmax(total <= 0, axis=1)
    return tf.gather(tf.sigmoid(x - y), first, batch_dims=1)


def normal(numbers: "tf.Tensor") -> "tf.Tensor":
    """Turn uniform numbers from [0, 1) into numbers of the standard normal distribution."""
    import tensorflow as tf

    return tf.math.ndtri(_open(numbers))


def _open(numbers: "tf.Tensor") -> "tf.Tensor":
    """Move numbers from [0, 1) into (0, 1), where logarithms and quantiles are finite."""
    import tensorflow as tf

    return tf.clip_by_value(numbers, 2.0**-25, 1 - 2.0**-24)


def _mix(value: "tf.Tensor") -> "tf.Tensor":
    """Hash integers of 32 bits: a change of one bit changes every bit of the result with a probability of one half."""
    import tensorflow as tf

    half = tf.constant(16, tf.int64)
    for _ in range(2):
        value = (tf.bitwise.right_shift(value, half) ^ value) * MULTIPLIER & BITS
    return tf.bitwise.right_shift(value, half) ^ value
