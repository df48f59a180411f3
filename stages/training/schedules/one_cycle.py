"""One cycle: a cosine up to the peak, another one down to almost zero (Smith and Topin, 2019)."""

from typing import Annotated

import numpy as np
from pydantic import Field

from stages.config.types import Fraction, Share


def build(
    peak: float,
    steps: int,
    epochs: int,
    *,
    warmup: Fraction,
    start: Share,
    end: Share,
    momentum: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = None,
) -> np.ndarray:
    """Return the learning rate of every step, (steps,) float32; with `momentum` (steps, 2), the momentum behind it.

    Args:
        peak: the highest learning rate.
        steps: number of steps of the training.
        epochs: number of epochs of the training.
        warmup: the share of the steps before the peak.
        start: the share of the peak at the first step.
        end: the share of the peak at the last step.
        momentum: at the ends and at the peak. Null: the optimizer's own.
    """
    top, last = max(warmup * steps - 1, 0.0), steps - 1

    def cycle(first: float, middle: float, final: float) -> np.ndarray:
        step = np.arange(steps)
        rising = _cosine(first, middle, step / max(top, 1e-9))
        falling = _cosine(middle, final, (step - top) / max(last - top, 1e-9))
        return np.where(step <= top, rising, falling).astype(np.float32)

    rates = cycle(peak * start, peak, peak * end)
    return rates if momentum is None else np.stack([rates, cycle(momentum[0], momentum[1], momentum[0])], axis=1)


def _cosine(first: float, last: float, position: np.ndarray) -> np.ndarray:
    return last + (first - last) * (1 + np.cos(np.pi * np.clip(position, 0, 1))) / 2
