"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

from typing import TYPE_CHECKING

from stages.config.types import Fraction, NotNegative, Rate
from stages.kernels import adam as _fused

if TYPE_CHECKING:
    import keras


def build(
    learning_rate: float, *, weight_decay: NotNegative, beta_1: Fraction, beta_2: Fraction, epsilon: Rate
) -> "keras.optimizers.Optimizer":
    """Return AdamW for the current distribution strategy; on one device it uses TensorFlow's kernel of Adam.

    Args:
        learning_rate: the learning rate until a schedule sets another.
        weight_decay: a step shrinks every weight by this share of the learning rate.
        beta_1: the share of the mean gradient that a step keeps.
        beta_2: the share of the mean squared gradient that a step keeps.
        epsilon: added to the root of the mean squared gradient, before its bias is corrected, as in Keras.
    """
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.AdamW):
        update_step = _fused.update_step

    fused = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return (FusedAdamW if fused else keras.optimizers.AdamW)(
        learning_rate, weight_decay=float(weight_decay), beta_1=beta_1, beta_2=beta_2, epsilon=epsilon
    )
