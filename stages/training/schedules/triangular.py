"""Straight lines: a warm-up to the peak, then a decay."""

import numpy as np

from stages.config.types import Share


def build(
    peak: float,
    steps: int,
    epochs: int,
    *,
    start: Share = 0.0,
    warmup: Share = 0.0,
    end: Share = 0.0,
    until: Share | None = None,
) -> np.ndarray:
    """Return the learning rate of every step of a training, (steps,) float32.

    Args:
        peak: the highest learning rate.
        steps: number of steps of the training.
        epochs: number of epochs of the training.
        start: the share of the peak at the first step, if there is a warm-up.
        warmup: the share of the steps before the peak.
        end: the share of the peak to which the learning rate falls.
        until: the share of the steps at which it gets there; after that it is 0. Null: all.
    """
    step = np.arange(steps)
    top, last = int(warmup * steps), round((1.0 if until is None else until) * steps)
    rising = start + (1 - start) * step / max(top, 1)
    falling = 1 + (end - 1) * (step - top) / max(last - top, 1)
    shares = np.where(step < last, np.where(step < top, rising, falling), 0.0)
    return (peak * shares).astype(np.float32)
