"""Stochastic gradient descent without momentum."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def build(learning_rate: float) -> "keras.optimizers.Optimizer":
    """Return Keras's SGD."""
    import keras

    return keras.optimizers.SGD(learning_rate)
