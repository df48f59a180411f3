"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

from typing import TYPE_CHECKING

from stages.config.types import Fraction, NotNegative, Rate

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build(
    learning_rate: float, *, weight_decay: NotNegative, beta_1: Fraction, beta_2: Fraction, epsilon: Rate
) -> "keras.optimizers.Optimizer":
    """Return AdamW for the current distribution strategy; on one device it uses TensorFlow's kernel of Adam.

    Args:
        learning_rate: in use until a schedule sets another.
        weight_decay: a step shrinks every weight by this share of the learning rate.
        beta_1: the share of the mean gradient that a step keeps.
        beta_2: the share of the mean squared gradient that a step keeps.
        epsilon: added to the root of the mean squared gradient, before its bias is corrected, as in Keras.
    """
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.AdamW):
        """Keras's AdamW with the same arithmetic in one kernel for each variable, which one device must hold."""

        def update_step(self, gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor") -> None:
            index = self._get_variable_index(variable)
            step = tf.cast(self.iterations + 1, variable.dtype)
            first, second = tf.cast(self.beta_1, variable.dtype), tf.cast(self.beta_2, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=tf.pow(first, step),
                beta2_power=tf.pow(second, step),
                lr=tf.cast(learning_rate, variable.dtype),
                beta1=first,
                beta2=second,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, variable.dtype),
            )

    fused = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return (FusedAdamW if fused else keras.optimizers.AdamW)(
        learning_rate, weight_decay=float(weight_decay), beta_1=beta_1, beta_2=beta_2, epsilon=epsilon
    )
