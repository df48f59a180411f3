"""A network for MNIST with strided instead of pooling layers (Deotte, "25 Million Images! 0.99757 MNIST", 2018)."""

from typing import TYPE_CHECKING

from stages.config.types import Fraction

if TYPE_CHECKING:
    import keras


def build(input_shape: tuple[int, ...], num_classes: int, *, norm_momentum: Fraction = 0.99) -> "keras.Model":
    """Seven ReLU convolutions, each with batch normalization, in three blocks with dropout after each; softmax.

    Args:
        input_shape: (height, width, channels); at least 25 pixels high and wide.
        num_classes: width of the softmax layer.
        norm_momentum: share of its moving averages that batch normalization keeps in a step.
    """
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(input_shape)])
    for filters in (32, 64):
        for _ in range(2):
            model.add(layers.Conv2D(filters, 3, activation="relu"))
            model.add(layers.BatchNormalization(momentum=norm_momentum))
        model.add(layers.Conv2D(filters, 5, strides=2, padding="same", activation="relu"))
        model.add(layers.BatchNormalization(momentum=norm_momentum))
        model.add(layers.Dropout(0.4))
    model.add(layers.Conv2D(128, 4, activation="relu"))
    model.add(layers.BatchNormalization(momentum=norm_momentum))
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.4))
    model.add(layers.Dense(num_classes, activation="softmax", dtype="float32"))
    return model
