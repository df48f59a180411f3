"""A convolutional network with batch normalisation after each pooling."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    import keras

Width = Annotated[int, Field(gt=0, lt=2**16)]


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: Annotated[list[Width], Field(min_length=1)],
    units: list[Width],
) -> "keras.Model":
    """(3×3 ReLU convolution without padding, 2×2 max pooling, batch norm) for each of `filters`; `units`; softmax."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(input_shape)])
    for count in filters:
        model.add(layers.Conv2D(count, 3, activation="relu"))
        model.add(layers.MaxPooling2D(2))
        model.add(layers.BatchNormalization())
    model.add(layers.Flatten())
    for width in units:
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(num_classes, activation="softmax", dtype="float32"))
    return model
