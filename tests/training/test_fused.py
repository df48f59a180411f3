"""Batch normalization in one kernel: the same numbers, variables and saved model as with Keras's layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.prediction.saved_model import save
from stages.training.loop import train_epochs
from tests.training.small import arrays, config, history_of, model_of

RNG = np.random.default_rng(0)
IMAGES = (RNG.normal(size=(6, 4, 5, 3)) * [0.5, 1, 2] + [0, 1, -1]).astype(np.float32)
UPSTREAM = RNG.normal(size=IMAGES.shape).astype(np.float32)
GAMMA, BETA = np.array([0.5, 1, 2]), np.array([0.1, 0, -1])


def normalization(sequential: bool = True, **options: Any) -> Any:
    """A model of one layer inside another model, with `GAMMA` and `BETA`."""
    import keras

    layer = keras.layers.BatchNormalization(momentum=0.6, epsilon=1e-3, **options)
    inner = keras.Sequential([keras.Input(IMAGES.shape[1:]), layer])
    if not sequential:
        inner = keras.Model(inner.inputs, layer(inner.inputs[0]))
    inputs = keras.Input(IMAGES.shape[1:])
    model = keras.Model(inputs, inner(inputs))
    layer.beta.assign(BETA)
    if layer.scale:
        layer.gamma.assign(GAMMA)
    return model


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.04), ("mixed_float16", 5e-3)])
def test_fused_step_equals_numpy(scale: bool, dtype: str, tolerance: float) -> None:
    import tensorflow as tf

    from stages.kernels.batch_norm import Kernel
    from stages.training.network import build_train_model

    model = normalization(scale=scale, dtype=dtype)
    fused = build_train_model(model, model.input_shape[1])
    assert [type(layer) for layer in fused.layers[1].layers] == [Kernel]

    def step(images: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(fused(images, training=True), tf.float32)
            loss = tf.reduce_sum(outputs * UPSTREAM)
        return outputs, tape.gradient(loss, [images, *fused.trainable_variables])

    outputs, gradients = tf.function(step)(tf.constant(IMAGES))
    gamma = GAMMA if scale else np.ones(3)
    mean, variance = IMAGES.mean((0, 1, 2)), IMAGES.var((0, 1, 2))
    normal = (IMAGES - mean) / np.sqrt(variance + 1e-3)
    correction = UPSTREAM.mean((0, 1, 2)) + normal * (UPSTREAM * normal).mean((0, 1, 2))
    expected = [
        normal * gamma + BETA,
        gamma / np.sqrt(variance + 1e-3) * (UPSTREAM - correction),
        *([(UPSTREAM * normal).sum((0, 1, 2))] if scale else []),
        UPSTREAM.sum((0, 1, 2)),
        0.4 * mean,
        0.6 + 0.4 * variance,  # of all pixels, not of one less
    ]
    found = [outputs, *gradients, *model.non_trainable_variables]
    for one, other in zip(found, expected, strict=True):
        scale_of_values = np.abs(other).max()
        np.testing.assert_allclose(np.asarray(one) / scale_of_values, other / scale_of_values, atol=tolerance)


def test_every_epsilon_is_fused_with_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras
    import tensorflow as tf

    from stages.kernels.batch_norm import Kernel

    layer = keras.layers.BatchNormalization(epsilon=1e-12)
    layer.build(IMAGES.shape)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["/device:GPU:0"])
    assert Kernel.applies_to(layer)


@pytest.mark.parametrize("sequential", [True, False])
def test_fused_validation_equals_keras_and_changes_nothing(sequential: bool) -> None:
    from stages.kernels.batch_norm import Kernel
    from stages.training.network import build_train_model

    model = normalization(sequential)
    model.layers[1].layers[-1].moving_variance.assign([0.5, 1, 4])
    fused = build_train_model(model, model.input_shape[1])
    assert type(fused.layers[1].layers[-1]) is Kernel
    before = model.get_weights()
    np.testing.assert_array_equal(fused(IMAGES, training=False), model(IMAGES, training=False))
    np.testing.assert_equal(model.get_weights(), before)
    assert [id(one) for one in fused.variables] == [id(one) for one in model.variables]


def test_layers_that_the_kernel_cannot_compute_stay_those_of_keras() -> None:
    import keras

    from stages.training.network import build_train_model

    dense = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    for model in [dense, normalization(trainable=False), normalization(synchronized=True)]:
        layers = build_train_model(model, model.input_shape[1])._flatten_layers(include_self=False)
        assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


def test_model_trained_with_the_kernel_is_saved_with_layers_of_keras(tmp_path: Path) -> None:
    import keras

    model = model_of(config(architecture="bn_cnn", filters=[8], units=[]))
    history = history_of(train_epochs(model, config(epochs=4), arrays(), arrays(seed=5), 1))
    assert history["accuracy"].iloc[-1] > 0.9
    save(model, tmp_path / "model.keras", {})
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    validation = arrays(seed=5)
    predicted = loaded.predict(validation.inputs, verbose=0).argmax(axis=1)
    assert (predicted == validation.labels).mean() == history["val_accuracy"].iloc[-1]
