"""LeNet-5 with ReLU: LeCun et al., "Gradient-based learning applied to document recognition", 1998."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def build(input_shape: tuple[int, ...], num_classes: int) -> "keras.Model":
    """Two 5×5 convolutions (6 and 16 filters) with average pooling, 120 and 84 units, softmax."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(6, 5, activation="relu", padding="same"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="relu", padding="same"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ]
    )
