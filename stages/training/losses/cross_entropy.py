"""Cross-entropy between the true class, or target probabilities, and the predicted probabilities."""

from collections.abc import Callable
from typing import Any


def build() -> Callable[[Any, Any], Any]:
    """Return the loss: labels (n,) or target probabilities (n, classes); probabilities (n, classes) → losses (n,)."""
    import keras

    def loss(targets: Any, probabilities: Any) -> Any:
        if len(targets.shape) == 1:
            return keras.losses.sparse_categorical_crossentropy(targets, probabilities)
        return keras.losses.categorical_crossentropy(targets, probabilities)

    return loss
