"""Build what a training needs from a model's configuration: the Keras model, its optimizer, its devices."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.models import Distribution, ModelConfig
from stages.config.parts import load_part
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build_model(config: ModelConfig, input_shape: tuple[int, ...], input_dtype: Any, num_classes: int) -> "keras.Model":
    """Build the uncompiled model that is saved and predicts. It scales uint8 pixels to [0, 1] itself.

    Args:
        config: the resolved configuration.
        input_shape: of one example.
        input_dtype: uint8 for pixels; anything else goes to the architecture as it is.
        num_classes: width of the output.

    Raises:
        UserError: the architecture does not fit the inputs.
    """
    import keras

    inputs = outputs = keras.Input(input_shape, dtype=str(input_dtype))
    if input_dtype == np.uint8:
        outputs = keras.layers.Rescaling(1 / 255)(keras.ops.cast(outputs, "float32"))
    architecture = load_part("models", config.architecture)
    try:
        network = architecture.build(tuple(outputs.shape[1:]), num_classes, **config.options)
    except ValueError as error:
        raise UserError(
            f"params.yaml: models: {config.architecture} does not fit inputs of shape {input_shape}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return keras.Model(inputs, network(outputs))


def without_cast(model: "keras.Model") -> "keras.Model":
    """The same layers for float32 pixels: a cast of augmented pixels to uint8 would round them.

    A model of features is returned as it is.
    """
    import keras

    if model.inputs[0].dtype != "uint8":
        return model
    inputs = outputs = keras.Input(model.input_shape[1:], dtype="float32")
    for layer in model.layers[1:]:  # the cast is an operation, not a layer
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def build_optimizer(config: ModelConfig, model: "keras.Model") -> "keras.optimizers.Optimizer":
    """Build the optimizer with its variables; in float16 with a loss scale, so that gradients do not underflow.

    `build(learning_rate, *, options)` in a module of stages/training/optimizers returns a Keras optimizer. Call this in
    the scope of the model's strategy.
    """
    import keras

    part = load_part("training.optimizers", config.optimizer.name)
    optimizer = part.build(config.learning_rate, **config.optimizer.options)
    if model.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def build_schedule(config: ModelConfig, steps: int) -> np.ndarray:
    """The learning rate of each of `steps` training steps, (steps,) float32.

    `build(peak, steps, *, options)` in a module of stages/training/schedules returns it.
    """
    part = load_part("training.schedules", config.schedule.name)
    rates: np.ndarray = part.build(config.learning_rate, steps, **config.schedule.options)
    if rates.shape != (steps,) or rates.dtype != np.float32:
        raise ValueError(f"schedule {config.schedule.name}: {rates.dtype} {rates.shape} instead of float32 ({steps},)")
    return rates


def build_loss(config: ModelConfig) -> Any:
    """The loss function: `build(*, options)` in a module of stages/training/losses returns it.

    It takes labels (n,) or target probabilities (n, classes), and probabilities (n, classes); it returns losses (n,).
    """
    return load_part("training.losses", config.loss.name).build(**config.loss.options)


def build_strategy(distribution: Distribution | None) -> "tf.distribute.Strategy":
    """One device, or all GPUs of this machine: a batch is split among them, and their gradients are summed."""
    import tensorflow as tf

    if distribution is None:
        return tf.distribute.get_strategy()
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in found])
