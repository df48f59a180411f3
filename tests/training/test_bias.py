"""Gradients of biases in bfloat16, against sums in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
ROWS = 50_000


def dense() -> Any:
    import keras

    return keras.layers.Dense(4)


def grouped() -> Any:
    import keras

    return keras.layers.Conv2D(4, 3, padding="same", groups=2)


def frozen() -> Any:
    import keras

    layer = keras.layers.Conv2D(4, 3, padding="same")
    layer.build((None, 28, 28, 4))
    layer.kernel.trainable = False
    return layer


def convolution() -> Any:
    import keras

    return keras.layers.Conv2D(4, 3, padding="same", activation="relu")


@pytest.mark.parametrize(
    ("build", "shape"),
    [(dense, (ROWS, 4)), (grouped, (64, 28, 28, 4)), (frozen, (64, 28, 28, 4)), (convolution, (64, 28, 28, 4))],
)
def test_gradient_of_a_bias_sums_in_float32(build: Callable[[], Any], shape: tuple[int, ...]) -> None:
    import keras
    import tensorflow as tf

    from stages.training.network import build_train_model

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = build()
        model = keras.Sequential([keras.Input(shape[1:]), layer])
    finally:
        keras.config.set_dtype_policy("float32")
    train_model = build_train_model(model, shape[1])
    inputs = tf.constant(RNG.normal(size=shape), tf.bfloat16)
    upstream = tf.constant(0.25 + RNG.normal(size=(*shape[:-1], 4)), tf.bfloat16)

    def run() -> Any:
        with tf.GradientTape() as tape:
            outputs = train_model(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.cast(upstream, tf.float32))
        return outputs, tape.gradient(loss, model.trainable_variables)  # all: oneDNN computes two at once

    outputs, (*_, found) = tf.function(run)()
    wide = tf.cast(upstream, tf.float64).numpy()
    if layer.activation is not keras.activations.linear:
        wide = wide * (outputs.numpy() > 0)
    expected = wide.reshape(-1, 4).sum(axis=0)
    assert np.abs(found.numpy() - expected).max() <= 0.01 * np.abs(expected).mean()
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), tf.cast(model(inputs), tf.float32))
