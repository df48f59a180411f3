"""Stochastic gradient descent with the momentum and the weight decay of PyTorch."""

from typing import TYPE_CHECKING

from stages.config.types import NotNegative, Share

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build(
    learning_rate: float, *, momentum: Share = 0.0, nesterov: bool = False, weight_decay: NotNegative = 0.0
) -> "keras.optimizers.Optimizer":
    """Return SGD: g ← g + weight_decay · w; m ← momentum · m + g; w ← w - learning_rate · m.

    Keras's own puts the learning rate into m, so a schedule acts on it with a delay, and shrinks w beside the gradient.

    Args:
        learning_rate: the learning rate until a schedule sets another.
        momentum: the share of m that a step keeps.
        nesterov: step by g + momentum · m instead of m.
        weight_decay: the share of the weights that is added to the gradient.
    """
    import keras
    import tensorflow as tf

    if not momentum and not weight_decay:
        return keras.optimizers.SGD(learning_rate)
    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1

    class CoupledSGD(keras.optimizers.SGD):
        """SGD whose weight decay goes through the momentum; on one device in TensorFlow's kernel."""

        def update_step(self, gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor") -> None:
            rate = tf.cast(learning_rate, variable.dtype)
            gradient = tf.cast(gradient, variable.dtype)
            if weight_decay:
                gradient += weight_decay * variable
            if not self.momentums:
                self.assign_sub(variable, rate * gradient)
                return
            velocity = self.momentums[self._get_variable_index(variable)]
            factor = tf.cast(self.momentum, variable.dtype)
            if one_device:
                tf.raw_ops.ResourceApplyMomentum(
                    var=variable.handle,
                    accum=velocity.value.handle,
                    lr=rate,
                    grad=gradient,
                    momentum=factor,
                    use_nesterov=nesterov,
                )
                return
            self.assign(velocity, factor * velocity + gradient)
            self.assign_sub(variable, rate * (gradient + factor * velocity if nesterov else velocity))

    return CoupledSGD(learning_rate, momentum=float(momentum), nesterov=nesterov)
