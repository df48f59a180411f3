"""What the devices of a training have to agree on.

This module imports TensorFlow at the top: import it late.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


def make_copy_from_first_device(
    strategy: tf.distribute.Strategy, variables: list[keras.Variable]
) -> Callable[[], None]:
    """Return a function that gives variables that each device changes by itself the values of the first device.

    Args:
        strategy: of the variables.
        variables: such as the moving averages of batch normalization.
    """
    if strategy.num_replicas_in_sync == 1 or not variables:
        return lambda: None

    def copy() -> None:
        for variable in variables:
            variable.assign(keras.ops.convert_to_numpy(variable))

    return copy
