"""Lookahead: fast weights return to slow ones, which follow them (Zhang et al., 2019)."""

from typing import TYPE_CHECKING

from stages.config.types import NotNegative, Positive, Share

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Lookahead:
    """The slow weights of a model."""

    def __init__(
        self, weights: "list[keras.Variable]", steps: int, every: int, decay: float, power: float, keep_slow: bool
    ) -> None:
        import keras

        self._weights = weights
        self._steps, self._every, self._decay, self._power, self._keep_slow = steps, every, decay, power, keep_slow
        self.variables = [
            keras.Variable(
                keras.ops.convert_to_numpy(weight), dtype=weight.dtype, trainable=False, name=f"slow_{number}"
            )
            for number, weight in enumerate(weights)
        ]

    def update(self, step: "tf.Tensor") -> None:
        """Every `every` steps, move the slow weights and return to them.

        Args:
            step: number of steps so far.
        """
        import tensorflow as tf

        tf.cond(step % self._every == 0, lambda: self._move(step), lambda: None)

    def finish(self) -> None:
        """At the end of the training, after the last update."""
        if self._keep_slow and self._steps >= self._every:  # else the slow weights are still those of the start
            for weight, slow in zip(self._weights, self.variables, strict=True):
                weight.assign(slow)

    def _move(self, step: "tf.Tensor") -> None:
        import tensorflow as tf

        decay = self._decay * tf.pow(tf.cast(step / self._steps, tf.float32), self._power)
        for weight, slow in zip(self._weights, self.variables, strict=True):
            slow.assign(slow + (1 - decay) * (weight - slow))
            weight.assign(slow)


def build(
    model: "keras.Model",
    steps: int,
    *,
    every: Positive,
    decay: Share,
    power: NotNegative = 0.0,
    batch_statistics: bool = False,
    keep_slow: bool = False,
) -> Lookahead:
    """Return the slow weights, which start as the weights of `model`.

    Args:
        model: the trained model; slow weights are kept beside its own.
        steps: number of steps of the training.
        every: number of steps between two updates.
        decay: the share of itself that a slow weight keeps in an update.
        power: multiply `decay` by (step / steps) to this power: an average that grows longer. 0: the same throughout.
        batch_statistics: whether the moving averages of batch normalization have slow weights, too.
        keep_slow: end with the slow weights instead of the fast ones.
    """
    weights = [
        variable
        for variable in model.variables
        if variable.trainable or (batch_statistics and variable.path.rpartition("/")[2].startswith("moving_"))
    ]
    return Lookahead(weights, steps, every, decay, power, keep_slow)
