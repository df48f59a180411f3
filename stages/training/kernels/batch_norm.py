"""Batch normalization in TensorFlow's fused kernel, for training.

Keras's layer casts its inputs to float32 and passes over them a dozen times on a CPU; the kernel needs three passes,
in the layer's own number format. The saved model keeps Keras's layers, which also validate: they cost little without
gradients, and TensorFlow would combine the kernel with neighbors such as mish that it has no kernel for.

This module imports TensorFlow at the top: import it late.
"""

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.Layer):
    """A built BatchNormalization, with its variables, in another implementation."""

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Batch normalization keeps the shape."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalize (n, height, width, channels); in training by the batch, which also updates the moving averages."""
        layer = self.layer
        if not training or mask is not None:
            return layer(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.ones(channels) if layer.gamma is None else tf.convert_to_tensor(layer.gamma),
            offset=tf.zeros(channels) if layer.beta is None else tf.convert_to_tensor(layer.beta),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=layer.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        biased = outputs.batch_variance * (tf.maximum(count - 1, 1) / count)  # the kernel divides by count - 1
        for average, value in ((layer.moving_mean, outputs.batch_mean), (layer.moving_variance, biased)):
            average.assign(average * layer.momentum + tf.stop_gradient(value) * (1 - layer.momentum))
        return outputs.y


def fused_batch_norm(layer: keras.layers.Layer) -> FusedBatchNormalization | None:
    """A replacement for a batch normalization that the kernel can compute; None for any other layer."""
    possible = (
        type(layer) is keras.layers.BatchNormalization
        and layer.trainable  # else Keras's gradient needs no batch statistics, and cuDNN's is not deterministic
        and len(layer._reduction_axes) == 3  # Keras is as fast for the outputs of a dense layer
        and layer.axis in (-1, 3)
        and not (layer.renorm or layer.synchronized)
        and layer.compute_dtype in ("float32", "bfloat16", "float16")
    )
    return FusedBatchNormalization(layer) if possible else None
