"""Losses, against their definition in NumPy."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stages.config.models import PartConfig
from stages.runtime.errors import UserError
from stages.training.loss import balanced_loss, build_loss
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


@pytest.mark.parametrize("one_hot", [False, True])
def test_balanced_class_weights_are_those_of_scikit_learn(one_hot: bool) -> None:
    import tensorflow as tf
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 6 + [1] * 3 + [3] * 1, np.int32)  # class 2 has no examples
    weights = np.zeros(4)
    weights[[0, 1, 3]] = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    probabilities = np.full((len(labels), 4), 0.25, np.float32)
    targets = tf.constant(np.eye(4, dtype=np.float32)[labels] if one_hot else labels)
    found = np.asarray(balanced_loss(cross_entropy.build(), labels, 4)(targets, probabilities))
    np.testing.assert_allclose(found, weights[labels] * np.log(4), rtol=1e-5)
    np.testing.assert_allclose(found.mean(), np.log(4), rtol=1e-5)


def test_loss_that_returns_one_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    mean = SimpleNamespace(build=keras.losses.SparseCategoricalCrossentropy)
    monkeypatch.setitem(sys.modules, "stages.training.losses.mean", mean)
    with pytest.raises(UserError, match=r"^stages/training/losses/mean.py: the loss of 2 examples has .* \(\): return"):
        build_loss(PartConfig(name="mean"), 3)
