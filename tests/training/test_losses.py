"""Losses, against their definition in NumPy."""

import numpy as np
import pytest

from stages.training.losses import cross_entropy

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
LABELS = np.array([0, 1], np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("targets", [LABELS, np.array([[0.6, 0.4, 0], [0, 0.5, 0.5]], np.float32)])
def test_cross_entropy_mixes_the_uniform_distribution_into_the_targets(smoothing: float, targets: np.ndarray) -> None:
    found = np.asarray(cross_entropy.build(label_smoothing=smoothing)(targets, PROBABILITIES))
    expected = (1 - smoothing) * (np.eye(3)[targets] if targets.ndim == 1 else targets) + smoothing / 3
    np.testing.assert_allclose(found, -(expected * np.log(PROBABILITIES)).sum(axis=1), rtol=1e-5)
    assert found.dtype == np.float32


def test_cross_entropy_of_a_softmax_keeps_the_gradient_of_very_improbable_classes() -> None:
    """Keras takes the logits before the softmax; a probability that is clipped has none."""
    import keras
    import tensorflow as tf

    loss_fn = cross_entropy.build(label_smoothing=0.3)
    logits = tf.constant([[40.0, 0.0, 0.0]])

    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = loss_fn(tf.constant([1]), keras.activations.softmax(logits))
        return tape.gradient(loss, logits)

    np.testing.assert_allclose(tf.function(gradient)(), [[1 - 0.1, -0.8, -0.1]], atol=1e-6)
