"""Activations of many passes over memory, such as GELU and Mish, in one pass.

XLA compiles an activation and its derivative into a loop each. Both compute in float32, so that a value of bfloat16 is
rounded once. As TensorFlow's operations, GELU took 4.5 times and Mish twice as long (29 million values of bfloat16,
two cores of an AMD EPYC, measured in turn). Without gradients the kernel
counts as well: `cifar10_airbench94` predicts 1.4 times as fast.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from stages.kernels.replacement import Replacement

SLOW = ("gelu", "mish", "silu")  # relu and tanh are a single pass as they are; of others nothing was measured


class Kernel(Replacement):
    """An Activation as one loop."""

    def __init__(self, layer: keras.layers.Activation) -> None:
        super().__init__(layer)
        self._compiled = _compile(layer.activation)

    @staticmethod
    def applies_to(layer: keras.layers.Layer) -> bool:
        """Whether it is an activation of many passes."""
        return type(layer) is keras.layers.Activation and layer.activation.__name__ in SLOW

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Apply the activation to each value, in training and in prediction."""
        return self._compiled(inputs)


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
