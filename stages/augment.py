"""Random changes of training images, as Keras layers: they are active in training only and have no parameters."""

from typing import TYPE_CHECKING

from stages.params import Augment

if TYPE_CHECKING:
    import keras


def layers(augment: Augment, seed: int) -> "list[keras.layers.Layer]":
    """The layers of an entry's `augment:`, in the order of the fields of `Augment`, for pixels from 0 to 255.

    They compute in float32 whatever the precision of the model: bfloat16 cannot tell neighbouring pixels apart.
    """
    import keras

    made: list[keras.layers.Layer] = []
    options = {"seed": seed, "dtype": "float32"}
    if augment.horizontal_flip:
        made.append(keras.layers.RandomFlip("horizontal", **options))
    if augment.contrast:
        made.append(keras.layers.RandomContrast(augment.contrast, **options))
    if augment.rotation:
        made.append(keras.layers.RandomRotation(augment.rotation, **options))
    if augment.shift:
        made.append(keras.layers.RandomTranslation(augment.shift, augment.shift, fill_mode="nearest", **options))
    if augment.zoom:
        made.append(keras.layers.RandomZoom(augment.zoom, **options))
    return made
