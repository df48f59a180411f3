"""Averaging of the weights."""

from typing import Any

import numpy as np
import pytest

from stages.training.averaging import lookahead
from tests.training.small import config, model_of, trained


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("keep_slow", [True, False])
def test_lookahead_returns_to_slow_weights_every_few_steps(statistics: bool, keep_slow: bool) -> None:
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(scale=False)])
    options: dict[str, Any] = {"every": 2, "decay": 0.8, "power": 3.0, "batch_statistics": statistics}
    averaging = lookahead.build(model, 5, **options, keep_slow=keep_slow)
    averaged = [True, statistics, statistics]  # beta, moving mean, moving variance
    fast = [weight.copy() for weight in model.get_weights()]
    slow = [weight.copy() for weight in fast]
    update = tf.function(averaging.update)
    for step in range(1, 6):
        for weight, variable in zip(fast, model.variables, strict=True):
            weight += step
            variable.assign_add(tf.fill([3], float(step)))
        update(tf.constant(step, tf.int64))
        if step % 2 == 0:
            decay = 0.8 * (step / 5) ** 3
            for number in np.flatnonzero(averaged):
                slow[number] = decay * slow[number] + (1 - decay) * fast[number]
                fast[number][:] = slow[number]
        for weight, expected in zip(model.get_weights(), fast, strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-5)
    averaging.finish()
    for weight, expected, other, is_averaged in zip(model.get_weights(), slow, fast, averaged, strict=True):
        np.testing.assert_allclose(weight, expected if is_averaged and keep_slow else other, rtol=1e-5)


def test_averaging_is_part_of_a_training_and_ends_before_the_last_validation() -> None:
    """With a decay of 1 the slow weights never leave the start; the fast ones do in the last of ten steps."""
    options = {"name": "lookahead", "every": 9, "decay": 1.0, "keep_slow": True}
    model, history = trained(config(averaging=options, epochs=2))
    start = model_of(config()).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), start, strict=True))
    _, untrained = trained(config(learning_rate=1e-30, epochs=1))
    assert history["val_loss"].iloc[-1] == untrained["val_loss"].iloc[-1] != history["val_loss"].iloc[0]


def test_training_shorter_than_the_first_update_of_lookahead_keeps_its_weights() -> None:
    options = {"name": "lookahead", "every": 11, "decay": 0.5, "keep_slow": True}
    averaged, plain = trained(config(averaging=options, epochs=2))[0], trained(config(epochs=2))[0]
    assert all(np.array_equal(a, b) for a, b in zip(averaged.get_weights(), plain.get_weights(), strict=True))
