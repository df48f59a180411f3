"""Decode an image file to the pixels that a model takes: those of training, whatever its format.

The import of the reader takes a second: import this module late.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from stages.data.convert import convert, is_upright
from stages.data.jpeg import find_error
from stages.data.reader import crop_and_resize

JPEG = b"\xff\xd8"


class Decoder:
    """Files → images of one size. Threads may share it."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        """Build the graphs for images of a size, with 3 channels, or 1 for grayscale."""

        def decode(data: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(data, channels=channels, expand_animations=False)
            image.set_shape((None, None, channels))
            return crop_and_resize(image, (height, width))

        # Graphs, as where the reader decodes: eagerly, each operation costs as much as a small image
        self._decode = tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
        self._resize = tf.function(
            lambda image: crop_and_resize(image, (height, width)),
            input_signature=[tf.TensorSpec((None, None, channels), tf.uint8)],
            autograph=False,
        )
        self._channels = channels

    def __call__(self, data: bytes) -> tuple[np.ndarray, list[str]]:
        """Decode one file.

        A JPEG file has the pixels that training and evaluation see, unless EXIF data turn it. Any other file is decoded
        by `convert`. Then both are cropped and resized in the same way.

        Returns:
            uint8 (height, width, channels), and what `convert` applied.

        Raises:
            ValueError: the file is invalid; the message continues "the file …".
        """
        with tf.device("cpu"):  # as in tf.data
            if data.startswith(JPEG):
                if error := find_error(data):
                    raise ValueError(error)
                if is_upright(data) and not (self._channels == 1 and _is_cmyk(data)):
                    try:
                        return self._decode(data).numpy(), []
                    except tf.errors.InvalidArgumentError:
                        raise ValueError("is corrupt") from None
            pixels, applied = convert(data)
            return self._resize(_with_channels(pixels, self._channels)).numpy(), applied


def _is_cmyk(data: bytes) -> bool:
    """Whether a valid JPEG file has CMYK or YCCK colors, of which TensorFlow knows no luma."""
    return Image.open(io.BytesIO(data)).mode == "CMYK"


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grayscale as equal colors, or colors as their luma."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]
    return np.repeat(pixels, channels, axis=-1)
