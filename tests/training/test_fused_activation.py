"""Activations in one pass: the numbers of Keras's own, and closer to those of float32."""

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)


def network(activation: str, dtype: str) -> Any:
    import keras

    return keras.Sequential([keras.Input((5,)), keras.layers.Activation(activation, dtype=dtype)])


@pytest.mark.parametrize("activation", ["gelu", "mish", "silu"])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [("float32", 1e-5), ("mixed_bfloat16", 2**-7), ("mixed_float16", 2**-10)]
)
def test_step_equals_that_of_keras(activation: str, dtype: str, rounding: float) -> None:
    import tensorflow as tf

    from stages.kernels.activation import Kernel
    from stages.training.network import build_train_model

    inputs = tf.constant(RNG.normal(size=(400, 5)) * 3, tf.as_dtype(dtype.removeprefix("mixed_")))
    upstream = tf.constant(RNG.normal(size=(400, 5)), inputs.dtype)

    def step(model: Any, inputs: Any, upstream: Any) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs, training=True)
        return [tf.cast(one, tf.float64).numpy() for one in (outputs, tape.gradient(outputs, inputs, upstream))]

    plain = network(activation, dtype)
    fast = build_train_model(plain, 5)
    assert type(fast.layers[-1]) is Kernel
    exact = step(network(activation, "float32"), tf.cast(inputs, tf.float32), tf.cast(upstream, tf.float32))
    found, keras_own = step(fast, inputs, upstream), step(plain, inputs, upstream)
    for one, other, expected in zip(found, keras_own, exact, strict=True):
        np.testing.assert_allclose(one, expected, rtol=rounding, atol=1e-6)
        assert np.abs(one - expected).mean() <= np.abs(other - expected).mean() + 1e-6


def test_activation_of_a_single_pass_stays_that_of_keras() -> None:
    from stages.training.network import build_train_model

    model = network("relu", "float32")
    assert build_train_model(model, 5) is model


def test_evaluation_computes_the_activation_as_training_does() -> None:
    from stages.prediction.forward import compile_forward
    from stages.training.network import build_train_model

    fast = build_train_model(network("gelu", "float32"), 5)
    inputs = RNG.normal(size=(7, 5)).astype(np.float32)
    np.testing.assert_array_equal(compile_forward(fast)(inputs), fast(inputs, training=True))
