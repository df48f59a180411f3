"""Biases whose gradients are summed in float32, for training in bfloat16.

On a CPU, the gradient of TensorFlow's BiasAdd sums in bfloat16: an addend of less than 1/256 of the sum is
lost. In a dense layer that was an error of 10 % with 1,024 rows and of 65 % with 50,000, such as the positions of
feature maps. The gradient of a broadcast addition sums in float32. A convolution whose kernel is trained needs no
replacement: oneDNN computes both gradients at once, in float32.

This module imports TensorFlow at the top: import it late.
"""

import keras
import tensorflow as tf

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


class AccurateBias(keras.layers.Layer):
    """A built dense layer or convolution, with its variables, that adds its bias in another way."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the layer."""
        shape: tuple[int | None, ...] = self.layer.compute_output_shape(input_shape)
        return shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Apply the layer."""
        layer = self.layer
        if not training:
            return layer(inputs)
        product = layer.convolution_op if isinstance(layer, CONVOLUTIONS) else keras.ops.matmul
        outputs = product(inputs, tf.cast(layer.kernel, inputs.dtype))
        return layer.activation(outputs + tf.cast(layer.bias, outputs.dtype))


def accurate_bias(layer: keras.layers.Layer) -> AccurateBias | None:
    """A replacement for a layer that trains its bias in bfloat16; None for any other layer."""
    dense = type(layer) is keras.layers.Dense
    lone = type(layer) in CONVOLUTIONS and (layer.groups > 1 or not layer.kernel.trainable)
    possible = (
        (dense or (lone and layer.data_format == "channels_last"))
        and layer.bias is not None
        and layer.bias.trainable
        and layer.compute_dtype == "bfloat16"
        and layer.activity_regularizer is None
    )
    return AccurateBias(layer) if possible else None
