"""One step of Adam as one TensorFlow kernel: Keras's own update reads and writes each variable a dozen times."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def update_step(optimizer: Any, gradient: "tf.Tensor", variable: "keras.Variable", learning_rate: "tf.Tensor") -> None:
    """Update a variable, which one device must hold, with the arithmetic of Keras's Adam.

    Args:
        optimizer: a built `keras.optimizers.Adam` without AMSGrad, or a subclass of it.
        gradient: gradient of the loss by the variable.
        variable: trained in place.
        learning_rate: this step's learning rate.
    """
    import tensorflow as tf

    index = optimizer._get_variable_index(variable)
    step = tf.cast(optimizer.iterations + 1, variable.dtype)
    beta_1, beta_2 = tf.cast(optimizer.beta_1, variable.dtype), tf.cast(optimizer.beta_2, variable.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=tf.pow(beta_1, step),
        beta2_power=tf.pow(beta_2, step),
        lr=tf.cast(learning_rate, variable.dtype),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=optimizer.epsilon,
        grad=tf.cast(gradient, variable.dtype),
    )
