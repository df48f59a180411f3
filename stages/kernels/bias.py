"""Biases whose gradients are summed in float32, for training in bfloat16.

On a CPU, the gradient of TensorFlow's BiasAdd sums in bfloat16: an addend of less than 1/256 of the sum is
lost. In a dense layer that was an error of 10 % with 1,024 rows and of 65 % with 50,000, such as the positions of
feature maps. The gradient of a broadcast addition sums in float32. A convolution whose kernel is trained needs no
replacement: oneDNN computes both gradients at once, in float32.
"""

import keras
import tensorflow as tf

from stages.kernels.replacement import Replacement

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


class Kernel(Replacement):
    """A dense layer or a convolution that adds its bias in another way."""

    @staticmethod
    def applies_to(layer: keras.layers.Layer) -> bool:
        """Whether the layer trains its bias in bfloat16, without a kernel that trains along in oneDNN."""
        dense = type(layer) is keras.layers.Dense
        lone = type(layer) in CONVOLUTIONS and (layer.groups > 1 or not layer.kernel.trainable)
        return (
            (dense or (lone and layer.data_format == "channels_last"))
            and layer.bias is not None
            and layer.bias.trainable
            and layer.compute_dtype == "bfloat16"
            and layer.activity_regularizer is None
        )

    def train(self, inputs: tf.Tensor) -> tf.Tensor:
        """Apply the layer."""
        layer = self.layer
        product = layer.convolution_op if isinstance(layer, CONVOLUTIONS) else keras.ops.matmul
        outputs = product(inputs, tf.cast(layer.kernel, inputs.dtype))
        return layer.activation(outputs + tf.cast(layer.bias, outputs.dtype))
