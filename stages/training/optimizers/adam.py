"""Adam; on one device with one TensorFlow kernel for each variable."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build(learning_rate: float) -> "keras.optimizers.Optimizer":
    """Return Adam for the current distribution strategy. The kernel is for variables of one device."""
    import keras
    import tensorflow as tf

    class FusedAdam(keras.optimizers.Adam):
        """Keras's Adam with the same arithmetic. Keras's own update reads and writes each variable a dozen times."""

        def update_step(self, gradient: "tf.Tensor", variable: "keras.Variable", learning_rate: "tf.Tensor") -> None:
            index = self._get_variable_index(variable)
            step = tf.cast(self.iterations + 1, variable.dtype)
            beta_1, beta_2 = tf.cast(self.beta_1, variable.dtype), tf.cast(self.beta_2, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=tf.pow(beta_1, step),
                beta2_power=tf.pow(beta_2, step),
                lr=tf.cast(learning_rate, variable.dtype),
                beta1=beta_1,
                beta2=beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, variable.dtype),
            )

    fused = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return (FusedAdam if fused else keras.optimizers.Adam)(learning_rate)
