"""Convolutions of small maps as matrix products: the same numbers and variables as with Keras's layer."""

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)


def convolution(size: int, kernel: int | tuple[int, int], stride: int, padding: str, dtype: str) -> Any:
    import keras

    layer = keras.layers.Conv2D(
        4, kernel, stride, padding, activation="softplus", bias_initializer="normal", dtype=dtype
    )
    return keras.Sequential([keras.Input((size, size + 1, 3)), layer])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "images", "as_product"),
    [
        (1, 3, 1, "same", 2, True),
        (2, 5, 1, "same", 2, True),
        (2, 5, 2, "same", 2, True),
        (2, (2, 3), 1, "valid", 2, True),
        (2, 2, 1, "valid", 2, False),
        (2, 3, 2, "same", 2, False),  # some inputs do not reach some outputs, and the batch is small
        (4, 3, 2, "same", 2000, True),
        (3, 3, 1, "same", 2400, True),
        (3, 3, 1, "same", 2000, False),
        (7, 3, 1, "same", 20, False),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_step_equals_that_of_keras(
    size: int,
    kernel: int | tuple[int, int],
    stride: int,
    padding: str,
    images: int,
    as_product: bool,
    dtype: str,
    tolerance: float,
) -> None:
    import tensorflow as tf

    from stages.training.network import build_train_model

    model = convolution(size, kernel, stride, padding, dtype)
    fast = build_train_model(model, size)
    inputs = tf.constant(RNG.normal(size=(images, size, size + 1, 3)), tf.float32)
    upstream = tf.constant(RNG.normal(size=(images, *model.output_shape[1:])), tf.float32)

    def step(network: Any) -> Any:
        def run() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = tf.cast(network(inputs, training=True), tf.float32)
                loss = tf.reduce_sum(outputs * upstream)
            return outputs, *tape.gradient(loss, [inputs, *network.trainable_variables])

        graph = tf.function(run).get_concrete_function()
        return [one.numpy() for one in graph()], {one.type for one in graph.graph.get_operations()}

    (found, operations), (expected, _) = step(fast), step(model)
    assert ("Conv2D" not in operations) == as_product
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())
    assert [id(one) for one in fast.variables] == [id(one) for one in model.variables]


def test_validation_is_that_of_keras() -> None:
    from stages.training.network import build_train_model

    model = convolution(2, 3, 1, "same", "float32")
    images = RNG.normal(size=(2, 2, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(build_train_model(model, 2)(images, training=False), model(images, training=False))


def test_model_without_convolutions_is_not_copied() -> None:
    import keras

    from stages.training.network import build_train_model

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert build_train_model(model, 3) is model
