"""A convolutional network with batch normalisation after each pooling."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stages.config.types import Fraction, Width

if TYPE_CHECKING:
    import keras


def build(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: Annotated[list[Width], Field(min_length=1)],
    units: list[Width],
    norm_momentum: Fraction = 0.99,
) -> "keras.Model":
    """(3×3 ReLU convolution without padding, 2×2 max pooling, batch norm) for each of `filters`; `units`; softmax.

    Args:
        input_shape: (height, width, channels).
        num_classes: width of the softmax layer.
        filters: number of filters of each convolution.
        units: width of each fully connected layer.
        norm_momentum: share of its moving averages that batch normalization keeps in a step.
    """
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(input_shape)])
    for count in filters:
        model.add(layers.Conv2D(count, 3, activation="relu"))
        model.add(layers.MaxPooling2D(2))
        model.add(layers.BatchNormalization(momentum=norm_momentum))
    model.add(layers.Flatten())
    for width in units:
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(num_classes, activation="softmax", dtype="float32"))
    return model
