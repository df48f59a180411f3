"""Adam; on one device with one TensorFlow kernel for each variable."""

from typing import TYPE_CHECKING

from stages.kernels import adam as _fused

if TYPE_CHECKING:
    import keras


def build(learning_rate: float) -> "keras.optimizers.Optimizer":
    """Return Adam for the current distribution strategy. The kernel is for variables of one device."""
    import keras
    import tensorflow as tf

    class FusedAdam(keras.optimizers.Adam):
        update_step = _fused.update_step

    fused = tf.distribute.get_strategy().num_replicas_in_sync == 1
    return (FusedAdam if fused else keras.optimizers.Adam)(learning_rate)
