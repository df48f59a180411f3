"""An epoch as one TensorFlow graph: between its steps nothing comes back to Python or waits for a queue of batches.

What is learnt from lies in memory, pixels as bytes, and a step gathers its images by their numbers. This module imports
TensorFlow, so import it where it is used.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from stages.records import Arrays

Epoch = Callable[[np.ndarray], tuple[float, float]]  # the numbers of images, in their order → mean loss, accuracy


def training(model: keras.Model, optimizer: keras.Optimizer, arrays: Arrays, batch_size: int) -> Epoch:
    """What trains `model` in place.

    On several devices each takes its share of every batch, and gradients are summed: as one device would learn, but
    for rounding and batch normalisation.

    Args:
        model: whose last layer is a softmax, built in the scope of its strategy.
        optimizer: made in the same scope.
        arrays: what it learns from.
        batch_size: of a step, on all devices; what is left over at the end of an epoch is a step of its own.

    Returns:
        A function of the order of the images. Loss and accuracy are those of each step before it learns.
    """

    def step(inputs: tf.Tensor, labels: tf.Tensor, images: int) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            losses, right = _judged(model, inputs, labels, training=True)
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / images)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return losses, right

    return _epoch(model, arrays, batch_size, step)


def checking(model: keras.Model, arrays: Arrays, batch_size: int) -> Epoch:
    """What measures `model` on images by their numbers: as `training`, but that nothing is learnt."""

    def step(inputs: tf.Tensor, labels: tf.Tensor, images: int) -> tuple[tf.Tensor, tf.Tensor]:
        return _judged(model, inputs, labels, training=False)

    return _epoch(model, arrays, batch_size, step)


def _judged(model: keras.Model, inputs: tf.Tensor, labels: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Of each image: its loss, and whether its class is the most probable one."""
    probabilities = model(inputs, training=training)
    losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    return losses, tf.argmax(probabilities, axis=1, output_type=labels.dtype) == labels


def _epoch(
    model: keras.Model,
    arrays: Arrays,
    batch_size: int,
    step: Callable[[tf.Tensor, tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]],
) -> Epoch:
    strategy = model.distribute_strategy
    with tf.device("cpu"):
        inputs, labels = tf.constant(arrays.inputs), tf.constant(arrays.labels)

    def on_device(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        own = numbers[context.replica_id_in_sync_group :: context.num_replicas_in_sync]
        with tf.device("cpu"):
            own_inputs, own_labels = tf.gather(inputs, own), tf.gather(labels, own)
        losses, right = step(own_inputs, own_labels, numbers.shape[0])
        return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.reduce_sum(tf.cast(right, tf.float64))

    def batch(numbers: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(on_device, (numbers,))
        return tf.stack([strategy.reduce("SUM", one, axis=None) for one in sums])

    def all_batches(batches: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
        total = tf.zeros(2, tf.float64)
        for numbers in batches:
            total += batch(numbers)
        if rest.shape[0]:
            total += batch(rest)
        return total

    run = tf.function(all_batches)

    def epoch(order: np.ndarray) -> tuple[float, float]:
        whole = len(order) // batch_size * batch_size
        batches = order[:whole].reshape(-1, batch_size)
        loss, right = (run(tf.constant(batches), tf.constant(order[whole:])) / len(order)).numpy().tolist()
        return loss, right

    return epoch
