"""Build what a training needs from a model's configuration: the Keras model, its optimizer, its devices."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.models import Distribution, GroupConfig, ModelConfig
from stages.config.plugins import load_plugin
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build_model(
    config: ModelConfig,
    input_shape: tuple[int, ...],
    input_dtype: Any,
    num_classes: int,
    pretrained: Path | None = None,
) -> "keras.Model":
    """Build the uncompiled model that is saved and predicts. It scales uint8 pixels to [0, 1] itself.

    Args:
        config: the resolved configuration. Its frozen variables are marked as not trainable.
        input_shape: of one example.
        input_dtype: uint8 for pixels; anything else goes to the architecture as it is.
        num_classes: width of the output.
        pretrained: the file of a network to continue with, which has inputs and outputs of these shapes.

    Raises:
        UserError: the architecture does not fit the inputs, or it has no variable of a name in `frozen`.
    """
    import keras

    from stages.prediction.saved_model import load_in
    from stages.training.groups import freeze

    architecture = load_plugin("models", config.architecture)
    if pretrained:
        network = load_in(pretrained, keras.config.dtype_policy().name)
        model: keras.Model = architecture.build(network, **config.options)
        freeze(model, config.frozen)
        return model
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
    freeze(model, config.frozen)
    return model


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


def build_train_model(model: "keras.Model", image_size: int) -> "keras.Model":
    """The same layers and variables as a training step uses them: for pixels that are not whole numbers.

    Args:
        model: the model that is saved.
        image_size: height and width of the images, if they are not those of `model`.
    """
    from stages.training.kernels.activation import fused_activation
    from stages.training.kernels.batch_norm import fused_batch_norm
    from stages.training.kernels.bias import accurate_bias
    from stages.training.kernels.small_maps import small_map_conv
    from stages.training.progressive import with_image_size

    train_model = without_cast(model)
    if image_size != model.input_shape[1]:
        train_model = with_image_size(train_model, image_size)
    return _with_replacements(train_model, accurate_bias, fused_batch_norm, fused_activation, small_map_conv)


def _with_replacements(model: "keras.Model", *replacements: Callable[..., Any]) -> "keras.Model":
    """The same variables and layers, except those that one of `replacements` computes faster or more accurately.

    Models inside the model are copied in the same way. A model without such layers is returned as it is.
    """
    import keras

    def replaced(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        return next(filter(None, (replace(layer) for replace in replacements)), layer)

    if all(replaced(layer) is layer for layer in model._flatten_layers(include_self=False)):
        return model
    copy: keras.Model = keras.models.clone_model(model, clone_function=replaced, recursive=True)
    return copy


def build_optimizer(config: ModelConfig, model: "keras.Model") -> "keras.optimizers.Optimizer":
    """Build the optimizer with its variables; in float16 with a loss scale, so that gradients do not underflow.

    `build(learning_rate, *, options)` in a module of stages/training/optimizers returns a Keras optimizer. A model with
    groups gets one for each of them, and one for the rest. Call this in the scope of the model's strategy.
    """
    import keras

    from stages.training.groups import GroupedOptimizer, split_variables

    members = []
    for own in _with_groups(config):
        part = own.optimizer or config.optimizer
        build = load_plugin("training.optimizers", part.name).build
        members.append(build(own.learning_rate or config.learning_rate, **part.options))
    optimizer = GroupedOptimizer(members, split_variables(config, model)) if config.groups else members[0]
    if model.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def build_schedule(config: ModelConfig, steps: int) -> np.ndarray:
    """Learning rate and momentum of each step, (epochs, steps, groups, 2) float32.

    `build(peak, steps, epochs, *, options)` in a module of stages/training/schedules returns them for all steps of the
    training, (steps,) or (steps, 2). Without a momentum, it is NaN. The first group is what no group matches.

    Args:
        config: the resolved configuration.
        steps: number of steps in an epoch.
    """
    total = steps * config.epochs
    rates = np.full((total, 1 + len(config.groups), 2), np.nan, np.float32)
    for number, own in enumerate(_with_groups(config)):
        part = own.schedule or config.schedule
        build = load_plugin("training.schedules", part.name).build
        found = build(own.learning_rate or config.learning_rate, total, config.epochs, **part.options)
        if found.shape not in ((total,), (total, 2)) or found.dtype != np.float32:
            raise ValueError(f"schedule {part.name}: {found.dtype} {found.shape} instead of float32 ({total},)")
        rates[:, number, : 1 if found.ndim == 1 else 2] = found.reshape(total, -1)
    return rates.reshape(config.epochs, steps, -1, 2)


def _with_groups(config: ModelConfig) -> list[ModelConfig | GroupConfig]:
    """What is not null in a group replaces the model's own."""
    return [config, *config.groups.values()]


def build_averaging(config: ModelConfig, model: "keras.Model", steps: int) -> Any:
    """The averaging of the weights, or None.

    `build(model, steps, *, options)` in a module of stages/training/averaging returns an object with the list
    `variables`, which checkpoints save, `update(step)`, which is called in the graph after every step, and `finish()`,
    which is called after the last step, unless `patience` ends the training before. Call this in the scope of the
    model's strategy.

    Args:
        config: the resolved configuration.
        model: with the weights that the training starts from.
        steps: number of steps of the training.
    """
    if config.averaging is None:
        return None
    return load_plugin("training.averaging", config.averaging.name).build(model, steps, **config.averaging.options)


def build_loss(config: ModelConfig) -> Any:
    """The loss function: `build(*, options)` in a module of stages/training/losses returns it.

    It takes labels (n,) or target probabilities (n, classes), and probabilities (n, classes); it returns losses (n,).
    """
    return load_plugin("training.losses", config.loss.name).build(**config.loss.options)


def weight_classes(loss_fn: Any, labels: np.ndarray, num_classes: int) -> Any:
    """The loss function with a weight for each class, so that every class has the same share in the loss of all labels.

    A weight is examples / (classes with examples · examples of the class), as in scikit-learn.

    Args:
        loss_fn: from `build_loss`.
        labels: of all training examples, (n,).
        num_classes: number of classes.
    """
    import tensorflow as tf

    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))

    def weighted(targets: Any, probabilities: Any) -> Any:
        losses, table = loss_fn(targets, probabilities), tf.constant(weights, tf.float32)
        if len(targets.shape) == 1:
            return losses * tf.gather(table, targets)
        return losses * tf.linalg.matvec(targets, table)

    return weighted


def build_strategy(distribution: Distribution | None) -> "tf.distribute.Strategy":
    """One device, or all GPUs of this machine: a batch is split among them, and their gradients are summed."""
    import tensorflow as tf

    if distribution is None:
        return tf.distribute.get_strategy()
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in found])
