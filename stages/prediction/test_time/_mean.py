"""The mean of a model's predictions over all views of an image."""

from collections.abc import Callable, Iterable

import numpy as np

from stages.prediction.calibration import SMALLEST


def mean_prediction(
    views: Iterable[tuple[float, np.ndarray]], predict: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Predict all views and take the mean of the log-probabilities, which is the mean of the logits of a softmax.

    Args:
        views: weights, which sum to 1, and images (n, height, width, channels), first the images as they are.
        predict: images → probabilities, float32 (n, classes).

    Returns:
        Probabilities from all views, and those from the first view alone, both float32 (n, classes).
    """
    total, first = np.zeros(1), None
    for weight, images in views:
        probabilities = predict(images)
        first = probabilities if first is None else first
        total = total + weight * np.log(np.maximum(probabilities, SMALLEST), dtype=np.float64)
    assert first is not None
    shares = np.exp(total - total.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), first
