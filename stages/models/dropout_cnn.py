"""A wide convolutional network for CIFAR-10, regularized by dropout alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def build(input_shape: tuple[int, ...], num_classes: int) -> "keras.Model":
    """Convolutions of 50, 75 and 125 filters with two poolings, 500 and 250 units, dropout after each part, softmax."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(50, 3, activation="relu", padding="same"),
            layers.Conv2D(75, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Conv2D(125, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(250, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ]
    )
