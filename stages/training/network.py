"""The networks of a training: the model that is saved, and the same variables as a training step computes them.

This module imports TensorFlow at the top: import it late.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.config.models import Distribution, ModelConfig
from stages.config.plugins import load_plugin
from stages.kernels.replacement import with_kernels
from stages.prediction.saved_model import load_in
from stages.runtime.errors import UserError
from stages.training.optimizer import matches
from stages.training.progressive import with_image_size


def build_strategy(distribution: Distribution | None) -> tf.distribute.Strategy:
    """One device, or all GPUs of this machine: a batch is split among them, and their gradients are summed."""
    if distribution is None:
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def build_model(
    config: ModelConfig,
    input_shape: tuple[int, ...],
    input_dtype: Any,
    num_classes: int,
    pretrained: Path | None = None,
) -> keras.Model:
    """Build the uncompiled model that is saved and predicts. It scales uint8 pixels to [0, 1] itself.

    Args:
        config: the resolved configuration. Its frozen variables are marked as not trainable.
        input_shape: shape of one example.
        input_dtype: uint8 for pixels; anything else goes to the architecture as it is.
        num_classes: width of the output.
        pretrained: the file of a network to continue with, which has inputs and outputs of these shapes.

    Raises:
        UserError: the architecture does not fit the inputs, or it has no variable of a name in `frozen`.
    """
    architecture = load_plugin("models", config.architecture)
    if pretrained:
        network = load_in(pretrained, keras.config.dtype_policy().name)
        model: keras.Model = architecture.build(network, **config.options)
    else:
        inputs = outputs = keras.Input(input_shape, dtype=str(input_dtype))
        if input_dtype == np.uint8:
            # In float32: bfloat16 would round 1/255 and the pixels before the network can normalize them
            outputs = keras.layers.Rescaling(1 / 255, dtype="float32")(keras.ops.cast(outputs, "float32"))
        try:
            network = architecture.build(tuple(outputs.shape[1:]), num_classes, **config.options)
        except ValueError as error:
            raise UserError(
                f"params.yaml: models: {config.architecture} does not fit inputs of shape {input_shape}: "
                f"{str(error).splitlines()[0]}"
            ) from None
        model = keras.Model(inputs, network(outputs))
    _freeze(model, config.frozen)
    return model


def build_train_model(model: keras.Model, image_size: int) -> keras.Model:
    """Rebuild a model as a training step uses it: for float32 pixels, in `image_size`, with the kernels for training.

    It shares the variables of `model`, which is saved.
    """
    train_model = without_cast(model)
    if image_size != model.input_shape[1]:
        train_model = with_image_size(train_model, image_size)
    return with_kernels(train_model)


def without_cast(model: keras.Model) -> keras.Model:
    """The same layers for float32 pixels: a cast of augmented pixels to uint8 would round them.

    A model of features is returned as it is.
    """
    if model.inputs[0].dtype != "uint8":
        return model
    inputs = outputs = keras.Input(model.input_shape[1:], dtype="float32")
    for layer in model.layers[1:]:  # the cast is an operation, not a layer
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def _freeze(model: keras.Model, globs: list[str]) -> None:
    """Exclude variables from training.

    Raises:
        UserError: a glob matches no variable.
    """
    for glob in globs:
        matching = [variable for variable in model.variables if matches(variable, glob)]
        if not matching:
            paths = ", ".join(variable.path for variable in model.trainable_variables)
            raise UserError(f"params.yaml: frozen: {glob!r} matches no variable of the model: {paths}")
        for variable in matching:
            variable.trainable = False
