"""Decode an image file to the pixels that a model takes: those of training, whatever its format.

The import of the reader takes a second: import this module late.
"""

import numpy as np
import tensorflow as tf

from stages.data.convert import decode
from stages.data.jpeg import MAX_PIXELS
from stages.data.reader import crop_and_resize


class Decoder:
    """Files → images of one size. Threads may share it."""

    def __init__(self, image_size: int, channels: int, max_pixels: int = MAX_PIXELS) -> None:
        """Prepare for square images.

        Args:
            image_size: height and width in pixels.
            channels: 3, or 1 for grayscale.
            max_pixels: that a file may have.
        """
        # A graph, as where the reader resizes: eagerly, each operation costs as much as a small image
        self._resize = tf.function(
            lambda image: crop_and_resize(image, image_size),
            input_signature=[tf.TensorSpec((None, None, channels), tf.uint8)],
            autograph=False,
        )
        self._channels, self._max_pixels = channels, max_pixels

    def __call__(self, data: bytes) -> tuple[np.ndarray, list[str]]:
        """Decode one file as `decode` does; then crop and resize it.

        Returns:
            uint8 (image_size, image_size, channels), and what `convert` applied.

        Raises:
            ValueError: the file is invalid; the message continues "the file …".
        """
        with tf.device("cpu"):  # as in tf.data
            pixels, applied = decode(data, self._channels, self._max_pixels)
            return self._resize(pixels).numpy(), applied
