"""Random changes of training images, as Keras layers: they are active in training only and have no parameters."""

from typing import TYPE_CHECKING, Any

from stages.params import Augment

if TYPE_CHECKING:
    import keras


def layers(augment: Augment, seed: int) -> "list[keras.layers.Layer]":
    """The layers of an entry's `augment:`, in the order of the fields of `Augment`, for pixels from 0 to 255.

    They compute in float32 whatever the precision of the model: bfloat16 cannot tell neighbouring pixels apart.
    """
    import keras

    chosen: list[tuple[type[keras.layers.Layer], list[Any], dict[str, Any]]] = []
    if augment.horizontal_flip:
        chosen.append((keras.layers.RandomFlip, ["horizontal"], {}))
    if augment.contrast:
        chosen.append((keras.layers.RandomContrast, [augment.contrast], {}))
    if augment.rotation:
        chosen.append((keras.layers.RandomRotation, [augment.rotation], {}))
    if augment.shift:
        chosen.append((keras.layers.RandomTranslation, [augment.shift, augment.shift], {"fill_mode": "nearest"}))
    if augment.zoom:
        chosen.append((keras.layers.RandomZoom, [augment.zoom], {}))
    # A seed for each: with one for all, they would draw the same numbers, and every mirrored image would turn one way.
    return [
        layer(*arguments, **options, seed=seed + number, dtype="float32")
        for number, (layer, arguments, options) in enumerate(chosen)
    ]
