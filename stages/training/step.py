"""One training step and one evaluation step, as functions for a TensorFlow graph.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from stages.training.augment import Augmentation, Batch

# Labels (n,) or target probabilities (n, classes); probabilities (n, classes) → losses (n,)
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# A batch, or one device's share; the examples of all devices → of each example: loss, whether the class is correct
Step = Callable[[Batch, int], tuple[tf.Tensor, tf.Tensor]]


def make_train_step(
    model: keras.Model,
    augmentations: list[Augmentation],
    loss_fn: Loss,
    optimizer: keras.optimizers.Optimizer,
) -> Step:
    """Return a function that trains `model` in place on one batch.

    Args:
        model: takes augmented inputs; its last layer is a softmax.
        augmentations: applied to each batch in this order.
        loss_fn: of a module of stages/training/losses.
        optimizer: built for the model's variables. On several devices it sums their gradients.
    """

    def train_step(batch: Batch, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        for augmentation in augmentations:
            batch = augmentation(batch)
        with tf.GradientTape() as tape:
            probabilities = model(batch.inputs, training=True)
            losses = _add_penalties(loss_fn(batch.targets, probabilities), model)
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / batch_size)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(_agree_on_finite(gradients, optimizer), model.trainable_variables)
        return losses, _is_correct(batch.targets, probabilities)

    return train_step


def make_eval_step(model: keras.Model, loss_fn: Loss) -> Step:
    """Return a function that measures `model` on one batch. Arguments as in `make_train_step`."""

    def eval_step(batch: Batch, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = model(batch.inputs, training=False)
        losses = _add_penalties(loss_fn(batch.targets, probabilities), model)
        return losses, _is_correct(batch.targets, probabilities)

    return eval_step


def _add_penalties(losses: tf.Tensor, model: keras.Model) -> tf.Tensor:
    """Add the model's own losses, such as weight regularization, to the loss of each example."""
    penalties = model.losses
    for penalty in penalties:  # of any dtype: an activity penalty has the model's
        losses += tf.cast(tf.reduce_sum(penalty), losses.dtype)
    return losses


def _is_correct(targets: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    labels = targets if targets.shape.rank == 1 else tf.argmax(targets, axis=1, output_type=tf.int32)
    return tf.argmax(probabilities, axis=1, output_type=labels.dtype) == labels


def _agree_on_finite(gradients: list[tf.Tensor], optimizer: keras.optimizers.Optimizer) -> list[tf.Tensor]:
    """Make the gradients of every device NaN if those of any device are not finite.

    Keras's LossScaleOptimizer skips a step whose gradients are not finite, but asks only one device, before it sums
    them: an overflow on another device would reach the weights.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return gradients
    finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients if gradient is not None]
    failed = context.all_reduce(tf.distribute.ReduceOp.SUM, 1 - tf.cast(tf.reduce_all(finite), tf.float32))
    poison = tf.where(failed > 0, float("nan"), 0.0)
    return [None if gradient is None else gradient + tf.cast(poison, gradient.dtype) for gradient in gradients]
