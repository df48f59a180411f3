"""Exponential decay: the same factor from each epoch to the next."""

import numpy as np

from stages.config.types import Fraction


def build(peak: float, steps: int, epochs: int, *, factor: Fraction) -> np.ndarray:
    """Return the learning rate of every step of a training, (steps,) float32.

    Args:
        peak: the learning rate of the first epoch.
        steps: number of steps of the training.
        epochs: number of epochs of the training.
        factor: between the learning rates of two epochs.
    """
    return (peak * factor ** (np.arange(steps) * epochs // steps)).astype(np.float32)
