"""Progressive resizing: the first epochs of a training at smaller images.

This module imports TensorFlow at the top: import it late.
"""

from typing import Any

import keras
import tensorflow as tf

from stages.config.models import ModelConfig
from stages.runtime.errors import UserError
from stages.training.augment import Batch


def image_sizes(config: ModelConfig, full: int) -> list[int]:
    """The image size of each epoch. The last epoch always has the full size, however few epochs there are."""
    sizes = [stage.image_size for stage in config.progressive for _ in range(stage.epochs)]
    return [*sizes[: config.epochs - 1], *[full] * (config.epochs - len(sizes[: config.epochs - 1]))]


def resize(batch: Batch, size: int) -> Batch:
    """Resize the images of a batch to a square, unless they have this size or are features."""
    if batch.inputs.shape.rank != 4 or batch.inputs.shape[1] == size:
        return batch
    return batch._replace(inputs=tf.image.resize(batch.inputs, (size, size), antialias=True))


def with_image_size(model: keras.Model, size: int) -> keras.Model:
    """The same layers and variables for square images of another size.

    Raises:
        UserError: a layer fits only the images it was built for.
    """
    inputs = keras.Input((size, size, model.input_shape[-1]), dtype=model.inputs[0].dtype)
    try:
        return _rebuild(model, inputs)
    except ValueError as error:
        raise UserError(
            f"params.yaml: progressive: the architecture does not fit images of {size} pixels: "
            f"{' '.join(str(error).split())}"
        ) from None


def _rebuild(model: keras.Model, inputs: keras.KerasTensor) -> keras.Model:
    """Call the layers of a model on other inputs; models inside the model are rebuilt, too."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            layer = _rebuild(layer, keras.Input(args[0].shape[1:], dtype=args[0].dtype))
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):  # which has no graph of its own
        outputs = inputs
        for layer in model.layers:
            outputs = call(layer, outputs)
        return keras.Model(inputs, outputs, name=model.name)
    tensors = keras.tree.pack_sequence_as(model.input, [inputs])  # the networks of keras.applications take a list
    return keras.models.clone_model(
        model, input_tensors=tensors, clone_function=lambda layer: layer, call_function=call
    )
