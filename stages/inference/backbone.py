"""Build the backbone of a model on features, alone or as one model with it.

This module imports TensorFlow at the top: import it late.
"""

from pathlib import Path
from typing import Any

import keras

from stages.data import features


def build_backbone(backbone: dict[str, Any], weights: Path) -> keras.Model:
    """Build the frozen backbone: uint8 pixels → features, in the number format in which they were extracted.

    Args:
        backbone: of a signature.
        weights: its file, from `find_weights`.
    """
    return features.build_backbone(
        backbone["name"],
        backbone["image_size"],
        backbone.get("pooling"),
        backbone.get("compute_dtype", "auto"),  # models of earlier versions do not say
        weights,
    )


def join(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """One model of pixels. The features in between are rounded to float16, in which they are stored.

    A backbone may scale pixels in a Lambda layer, which holds code and therefore cannot be loaded from a file. The
    operations inside take its place.
    """

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer.function(*args) if isinstance(layer, keras.layers.Lambda) else layer(*args, **kwargs)

    plain = keras.models.clone_model(backbone, clone_function=lambda layer: layer, call_function=call)
    inputs = keras.Input(backbone.input_shape[1:], dtype=backbone.inputs[0].dtype)
    return keras.Model(inputs, head(keras.ops.cast(plain(inputs), "float16")))
