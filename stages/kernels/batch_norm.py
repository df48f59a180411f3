"""Batch normalization in TensorFlow's fused kernel.

Keras's layer casts its inputs to float32 and passes over them a dozen times on a CPU; the kernel needs three passes,
in the layer's own number format: four to six times as fast, forward and backward. Keras's layers validate and predict:
they cost little without gradients, and TensorFlow would combine the kernel with neighbors such as mish that it has no
kernel for.
"""

import keras
import tensorflow as tf

from stages.kernels.replacement import Replacement


class Kernel(Replacement):
    """A BatchNormalization of (n, height, width, channels) by the fused kernel."""

    @staticmethod
    def applies_to(layer: keras.layers.Layer) -> bool:
        """Whether the kernel can normalize by the batch what this layer normalizes."""
        return (
            type(layer) is keras.layers.BatchNormalization
            and layer.trainable  # else Keras's gradient needs no batch statistics, and cuDNN's is not deterministic
            and len(layer._reduction_axes) == 3  # Keras is as fast for the outputs of a dense layer
            and layer.axis in (-1, 3)
            and not (layer.renorm or layer.synchronized)
            and layer.compute_dtype in ("float32", "bfloat16", "float16")
        )

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalize, in training by the batch, which also updates the moving averages."""
        if mask is not None:
            return self.layer(inputs, training=training, mask=mask)
        return super().call(inputs, training)

    def train(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalize by the batch and update the moving averages."""
        layer, channels = self.layer, inputs.shape[-1]
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
