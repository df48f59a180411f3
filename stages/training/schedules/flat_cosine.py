"""The peak for most of the steps, then half a cosine."""

import numpy as np

from stages.config.types import Fraction, Share


def build(peak: float, steps: int, epochs: int, *, flat: Fraction, end: Share = 0.0) -> np.ndarray:
    """Return the learning rate of every step of a training, (steps,) float32.

    Args:
        peak: the learning rate of the flat part.
        steps: number of steps of the training.
        epochs: number of epochs of the training.
        flat: the share of the steps with the peak.
        end: the share of the peak towards which the learning rate falls.
    """
    position = np.clip((np.arange(steps) / steps - flat) / (1 - flat), 0, 1)
    return (peak * (end + (1 - end) * (1 + np.cos(np.pi * position)) / 2)).astype(np.float32)
