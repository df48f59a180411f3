"""Half a cosine: from the peak at the first step towards zero after the last one."""

import numpy as np


def build(peak: float, steps: int, epochs: int) -> np.ndarray:
    """Return the learning rate of every step of a training, (steps,) float32."""
    return (peak * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2).astype(np.float32)
