"""What the devices of a training have to agree on, and which process writes its files.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes checkpoints and outputs: the only one, or the first of several workers."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_id == 0


def own_share(strategy: tf.distribute.Strategy) -> slice:
    """The examples of a batch that the devices of this process take: all, or those of one of several workers."""
    resolver = strategy.cluster_resolver  # of workers, which have a device each
    return slice(None) if resolver is None else slice(resolver.task_id, None, strategy.num_replicas_in_sync)


def make_copy_from_first_device(
    strategy: tf.distribute.Strategy, variables: list[keras.Variable]
) -> Callable[[], None]:
    """Return a function that gives variables that each device changes by itself the values of the first device.

    Args:
        strategy: of the variables. All workers call the function at the same point of the training.
        variables: such as the moving averages of batch normalization.
    """
    if strategy.num_replicas_in_sync == 1 or not variables:
        return lambda: None
    if strategy.cluster_resolver is not None:
        return _make_copy_from_first_worker(strategy, variables)

    def copy() -> None:
        for variable in variables:
            variable.assign(keras.ops.convert_to_numpy(variable))

    return copy


def _make_copy_from_first_worker(
    strategy: tf.distribute.Strategy, variables: list[keras.Variable]
) -> Callable[[], None]:
    """A sum over the workers, which have a device each, and of which all but the first contribute zeros."""
    chief = is_chief(strategy)

    def copy() -> None:
        values = [tf.convert_to_tensor(variable) for variable in variables]
        own = [_summable(value) for value in values]
        if not chief:
            own = [tf.zeros_like(value) for value in own]
        sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
        for variable, value, total in zip(variables, values, sums, strict=True):
            variable.assign(tf.cast(total, value.dtype))

    return tf.function(lambda: strategy.run(copy), autograph=False)


def _summable(value: tf.Tensor) -> tf.Tensor:
    """In a dtype that TensorFlow can sum over workers: the seeds of random layers are unsigned."""
    # The identity is on the device of this worker, which a variable's value in a graph does not tell
    return tf.identity(value) if value.dtype.is_floating else tf.cast(value, tf.int64)
