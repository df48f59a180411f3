"""Schedules and losses."""

import numpy as np

from stages.training.losses import cross_entropy
from stages.training.schedules import constant, cosine


def test_schedule_gives_a_float32_rate_for_every_step() -> None:
    np.testing.assert_array_equal(constant.build(0.1, 3), np.full(3, 0.1, np.float32))
    rates = cosine.build(0.1, 100)
    assert rates.dtype == np.float32 and rates.shape == (100,)
    assert rates[0] == np.float32(0.1) and rates[50] == np.float32(0.05) and 0 < rates[-1] < 1e-4
    assert (np.diff(rates) < 0).all()


def test_cross_entropy_takes_labels_or_target_probabilities() -> None:
    import tensorflow as tf

    probabilities = tf.constant([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    loss = cross_entropy.build()
    np.testing.assert_allclose(loss(tf.constant([0, 2]), probabilities), -np.log([0.7, 0.8]), rtol=1e-6)
    soft = tf.constant([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = [-(np.log(0.7) + np.log(0.2)) / 2, -np.log(0.8)]
    np.testing.assert_allclose(loss(soft, probabilities), expected, rtol=1e-6)
