"""Convolutions of small feature maps as one matrix product, on a CPU.

A convolution from 2 × 2 to 1 × 1 positions, or within 2 × 2, is a product of all inputs of an image with a matrix whose
blocks are the kernel's taps. oneDNN's convolutions compute each position for itself, and their backward pass with a
batch of 1,024 took 6 to 14 times as long as the product.
"""

import keras
import numpy as np
import tensorflow as tf

from stages.kernels.replacement import Replacement

# A matrix has a block for each pair of an input and an output position. Where some pairs have no tap, it holds zeros,
# which pay if the batch is large compared with the number of pairs.
MIN_IMAGES_PER_PAIR = 16
MAX_PAIRS = 200  # more, such as from 4 × 4 to 4 × 4 positions, take longer with any batch


class Kernel(Replacement):
    """A Conv2D of (n, height, width, channels) that decides by the size of its maps."""

    @staticmethod
    def applies_to(layer: keras.layers.Layer) -> bool:
        """Whether it is a plain convolution on a CPU."""
        return (
            type(layer) is keras.layers.Conv2D
            and layer.data_format == "channels_last"
            and layer.groups == 1
            and layer.dilation_rate == (1, 1)
            and layer.activity_regularizer is None
            and not tf.config.list_logical_devices("GPU")
        )

    def train(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolve, as one product where that pays."""
        layer = self.layer
        _, height, width, channels = inputs.shape
        if not height or not width:
            return layer(inputs)
        _, rows, columns, filters = self.compute_output_shape(inputs.shape)
        pairs = height * width * rows * columns
        if pairs > MAX_PAIRS:
            return layer(inputs)
        taps = [
            _taps(*sizes, layer.padding)
            for sizes in zip((height, width), (rows, columns), layer.kernel_size, layer.strides, strict=True)
        ]
        # (input, output, tap), each a position in two dimensions: whether the tap leads from the input to the output
        mask = np.einsum("abc,xyz->axbycz", *taps).reshape(height * width, rows * columns, -1)
        if not mask.any(axis=2).all() and pairs * MIN_IMAGES_PER_PAIR > (inputs.shape[0] or 0):
            return layer(inputs)
        kernel = tf.cast(layer.kernel, inputs.dtype)
        blocks = tf.matmul(
            tf.constant(mask.reshape(pairs, -1), inputs.dtype), tf.reshape(kernel, (-1, channels * filters))
        )
        blocks = tf.reshape(blocks, (height * width, rows * columns, channels, filters))
        matrix = tf.reshape(tf.transpose(blocks, (0, 2, 1, 3)), (height * width * channels, rows * columns * filters))
        outputs = tf.matmul(tf.reshape(inputs, (-1, height * width * channels)), matrix)
        outputs = tf.reshape(outputs, (-1, rows, columns, filters))
        if layer.bias is not None:
            # Not tf.nn.bias_add: outside of a convolution, its gradient sums bfloat16 in bfloat16
            outputs += tf.cast(layer.bias, outputs.dtype)
        return layer.activation(outputs)


def _taps(inputs: int, outputs: int, taps: int, stride: int, padding: str) -> np.ndarray:
    """Whether a tap leads from an input to an output position of one dimension, (inputs, outputs, taps)."""
    missing = max((outputs - 1) * stride + taps - inputs, 0)
    first = np.arange(outputs) * stride - (missing // 2 if padding == "same" else 0)
    position = np.arange(inputs)[:, np.newaxis, np.newaxis]
    return first[:, np.newaxis] + np.arange(taps) == position
