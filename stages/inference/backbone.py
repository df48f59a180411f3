"""Build the backbone of a model on features, alone or as one model with it: to predict, or to continue its training.

This module imports TensorFlow at the top: import it late.
"""

from pathlib import Path
from typing import Any

import keras

from stages.data import extraction as features
from stages.runtime.errors import UserError


def build_backbone(backbone: dict[str, Any], weights: Path) -> keras.Model:
    """Build the frozen backbone: uint8 pixels → features, in the number format in which they were extracted.

    Args:
        backbone: the entry `backbone` of a model's signature.
        weights: file of the backbone's weights, from `find_weights`.
    """
    return features.build_backbone(
        backbone["name"],
        backbone["image_size"],
        backbone.get("pooling"),
        backbone.get("compute_dtype", "auto"),  # models of earlier versions do not say
        weights,
    )


def join_for_training(backbone: keras.Model, head: keras.Model, key: str) -> keras.Model:
    """One network of pixels whose layers can all be trained: nothing is rounded between backbone and head.

    It is a chain of the cast of uint8 pixels, the backbone and the head, so that a training step can start behind the
    cast, as in the networks of stages/models. The arguments are not to be used afterwards.

    Args:
        backbone: network that `build_backbone` returned.
        head: a model on its features.
        key: key in params.yaml that a message names.

    Raises:
        UserError: the head does not fit the features.
    """
    pixels = keras.Input(backbone.input_shape[1:], dtype="uint8")
    backbone.trainable = True
    network = _without_code(backbone, keras.Input(backbone.input_shape[1:], dtype="float32"))
    features = keras.Input(head.input_shape[1:], dtype="float32")
    if head.input_shape != network.output_shape:
        raise UserError(
            f"params.yaml: {key}: features of shape {network.output_shape[1:]} do not fit the head, which takes "
            f"{head.input_shape[1:]}; remove it, or extract features with pooling: avg"
        )
    continued = keras.models.clone_model(head, input_tensors=features, clone_function=lambda layer: layer)
    return keras.Model(pixels, continued(network(keras.ops.cast(pixels, "float32"))))


def _without_code(backbone: keras.Model, inputs: keras.KerasTensor) -> keras.Model:
    """The same layers for other inputs.

    A backbone may scale pixels in a Lambda layer, which holds code and therefore cannot be loaded from a file. The
    operations inside take its place.
    """

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer.function(*args) if isinstance(layer, keras.layers.Lambda) else layer(*args, **kwargs)

    tensors = keras.tree.pack_sequence_as(backbone.input, [inputs])  # may be a list of one
    plain: keras.Model = keras.models.clone_model(
        backbone, input_tensors=tensors, clone_function=lambda layer: layer, call_function=call
    )
    return plain
