"""A plain convolutional network: 3×3 convolutions and max pooling, then fully connected layers."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stages.config.types import Width

if TYPE_CHECKING:
    import keras


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: Annotated[list[Width], Field(min_length=1)],
    padding: Literal["same", "valid"],
    units: list[Width],
) -> "keras.Model":
    """(3×3 ReLU convolution, 2×2 max pooling) for each of `filters`; a ReLU layer for each of `units`; softmax."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(input_shape)])
    for count in filters:
        model.add(layers.Conv2D(count, 3, activation="relu", padding=padding))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    for width in units:
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(num_classes, activation="softmax", dtype="float32"))
    return model
