"""Cross-entropy between the true class, or target probabilities, and the predicted probabilities."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field


def build(*, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> Callable[[Any, Any], Any]:
    """Return the loss: labels (n,) or target probabilities (n, classes); probabilities (n, classes) → losses (n,).

    Args:
        label_smoothing: share of the uniform distribution that is mixed into the targets (Szegedy et al., 2015), in
            training and in validation.
    """
    import keras

    def loss(targets: Any, probabilities: Any) -> Any:
        if len(targets.shape) == 1:
            if not label_smoothing:
                return keras.losses.sparse_categorical_crossentropy(targets, probabilities)
            targets = keras.ops.one_hot(targets, probabilities.shape[-1])
        return keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=label_smoothing)

    return loss
