"""The loss of a model's configuration, and its weights for classes of different sizes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stages.config.models import PartConfig
from stages.config.plugins import build_plugin
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

# Labels (n,) or target probabilities (n, classes); probabilities (n, classes) → losses (n,)
Loss = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


def build_loss(config: PartConfig, num_classes: int) -> Loss:
    """Build the loss function: `build(*, options)` in a module of stages/training/losses returns it.

    Raises:
        UserError: it does not return one loss for each example.
    """
    import tensorflow as tf

    loss: Loss = build_plugin("training.losses", config)
    uniform = tf.fill((2, num_classes), 1 / num_classes)
    for targets in (tf.zeros(2, tf.int32), uniform):  # labels, and what mixup makes of them
        losses = loss(targets, uniform)
        if tuple(losses.shape) != (2,):
            raise UserError(
                f"stages/training/losses/{config.name}.py: the loss of 2 examples has the shape {tuple(losses.shape)}: "
                "return (2,), one loss for each example, without a mean or sum over them"
            )
    return loss


def balanced_loss(loss: Loss, labels: np.ndarray, num_classes: int) -> Loss:
    """Weight the classes of a loss so that every class has the same share in the loss of all examples.

    A class's weight is examples / (classes with examples · examples of the class), as in scikit-learn. A target of
    several classes, from mixup or cutmix, is weighted class by class: its loss is that of the weighted shares, times
    their sum.

    Args:
        loss: linear in the targets, as cross-entropy is.
        labels: the labels of all training examples, (n,).
        num_classes: number of classes.
    """
    import tensorflow as tf

    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))

    def balanced(targets: "tf.Tensor", probabilities: "tf.Tensor") -> "tf.Tensor":
        table = tf.constant(weights, tf.float32)
        if targets.shape.rank == 1:
            return loss(targets, probabilities) * tf.gather(table, targets)
        shares = targets * table
        total = tf.reduce_sum(shares, axis=1, keepdims=True)
        return loss(shares / total, probabilities) * total[:, 0]

    return balanced
