"""Activations of many passes over memory, such as GELU and Mish, in one pass, for training.

XLA compiles an activation and its derivative into a loop each. Both compute in float32, so that a value of bfloat16 is
rounded once. As TensorFlow's operations, GELU took 4.5 times and Mish twice as long (29 million values of bfloat16,
two cores of an AMD EPYC, measured in turn). The saved model keeps Keras's layers, which also validate.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

SLOW = ("gelu", "mish", "silu")  # relu and tanh are a single pass as they are; of others nothing was measured


class FusedActivation(keras.layers.Layer):
    """An Activation in another implementation."""

    def __init__(self, layer: keras.layers.Activation) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self._compiled = _compile(layer.activation)
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """An activation keeps the shape."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Apply the activation to each value."""
        outputs: tf.Tensor = self._compiled(inputs) if training else self.layer(inputs)
        return outputs


def fused_activation(layer: keras.layers.Layer) -> FusedActivation | None:
    """A replacement for an activation of many passes; None for any other layer."""
    possible = type(layer) is keras.layers.Activation and layer.activation.__name__ in SLOW
    return FusedActivation(layer) if possible else None


def _compile(activation: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    def forward(inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(activation(tf.cast(inputs, tf.float32)), inputs.dtype)

    def backward(inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(inputs, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(wide)
            outputs = activation(wide)
        return tf.cast(tape.gradient(outputs, wide, tf.cast(upstream, tf.float32)), inputs.dtype)

    forward, backward = (tf.function(one, jit_compile=True, autograph=False) for one in (forward, backward))
    return tf.custom_gradient(lambda inputs: (forward(inputs), lambda upstream: backward(inputs, upstream)))
