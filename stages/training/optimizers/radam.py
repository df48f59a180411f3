"""RAdam: Adam that rectifies the variance of its first steps (Liu et al., 2020), with decoupled weight decay."""

from typing import TYPE_CHECKING

from stages.config.types import Fraction, NotNegative, Rate

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

THRESHOLD = 5.0  # number of gradients that the mean squared gradient stands for; below it, momentum alone


def build(
    learning_rate: float, *, beta_1: Fraction, beta_2: Fraction, epsilon: Rate, weight_decay: NotNegative = 0.0
) -> "keras.optimizers.Optimizer":
    """Return RAdam; together with `averaging: {name: lookahead}` it is Ranger.

    Args:
        learning_rate: the learning rate until a schedule sets another.
        beta_1: the share of the mean gradient that a step keeps.
        beta_2: the share of the mean squared gradient that a step keeps.
        epsilon: added to the root of the mean squared gradient after its bias was corrected.
        weight_decay: a step shrinks every weight by this share of the learning rate.
    """
    import keras
    import tensorflow as tf

    longest = 2 / (1 - beta_2) - 1
    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1

    class RAdam(keras.optimizers.AdamW):
        """Keras's variables and weight decay with the steps of RAdam."""

        def update_step(self, gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor") -> None:
            index = self._get_variable_index(variable)
            mean, squared = self._momentums[index], self._velocities[index]
            gradient = tf.cast(gradient, variable.dtype)
            rate = tf.cast(learning_rate, variable.dtype)
            step = tf.cast(self.iterations + 1, variable.dtype)
            first, second = tf.cast(self.beta_1, variable.dtype), tf.cast(self.beta_2, variable.dtype)
            first_power, second_power = tf.pow(first, step), tf.pow(second, step)
            length = longest - 2 * step * second_power / (1 - second_power)
            variance = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            rectification = tf.sqrt(tf.maximum(variance, 0))

            def step_by_adam() -> None:
                if not one_device:
                    update_means()
                    root = tf.sqrt(squared / (1 - second_power)) + self.epsilon
                    self.assign_sub(variable, rate * rectification / (1 - first_power) * mean / root)
                    return
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle,
                    m=mean.value.handle,
                    v=squared.value.handle,
                    beta1_power=first_power,
                    beta2_power=second_power,
                    lr=rate * rectification,
                    beta1=first,
                    beta2=second,
                    epsilon=self.epsilon * tf.sqrt(1 - second_power),  # the kernel adds it before the correction
                    grad=gradient,
                )

            def step_by_momentum() -> None:
                update_means()
                self.assign_sub(variable, rate / (1 - first_power) * mean)

            def update_means() -> None:
                self.assign_add(mean, (gradient - mean) * (1 - first))
                self.assign_add(squared, (tf.square(gradient) - squared) * (1 - second))

            tf.cond(length > THRESHOLD, step_by_adam, step_by_momentum)

    return RAdam(learning_rate, weight_decay=float(weight_decay), beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
