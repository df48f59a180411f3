"""Fully connected layers on the flattened input."""

from typing import TYPE_CHECKING

from stages.config.types import Width

if TYPE_CHECKING:
    import keras


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    units: list[Width],
) -> "keras.Model":
    """Flatten, one ReLU layer for each of `units`, which may be none, softmax."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            *(layers.Dense(width, activation="relu") for width in units),
            layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ]
    )
