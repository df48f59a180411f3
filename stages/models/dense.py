"""Fully connected layers on the flattened input."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.config.types import Width

if TYPE_CHECKING:
    import keras


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
<<<<<<< HEAD
    units: list[Annotated[int, Field(gt=0, lt=2**16)]],
=======
    units: Annotated[list[Width], Field(min_length=1)],
>>>>>>> h-w
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
