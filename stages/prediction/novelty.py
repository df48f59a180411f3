"""Tell images that belong to none of the classes, by their features.

An image is as similar to what a model knows as its features are to the nearest class mean, by the cosine. Unlike the
probabilities, which always sum to 1, the cosine is low for images of other things. docs/predict.md has measurements.
"""

from collections.abc import Iterable

import numpy as np

from stages.data.arrays import SplitArrays

TINY = np.finfo(np.float32).tiny  # the least length that divides: features may all be 0


def class_means(parts: Iterable[SplitArrays], num_classes: int) -> np.ndarray:
    """Average the features of each class.

    Args:
        parts: of the training split, whose inputs are features.
        num_classes: number of classes.

    Returns:
        Vectors of length 1, float32 (classes, features); zeros for a class without images.
    """
    sums = np.zeros((num_classes, 0))
    for part in parts:
        features = _unit(part.inputs)
        if not sums.size:
            sums = np.zeros((num_classes, features.shape[1]))
        for label in np.unique(part.labels):
            sums[label] += features[part.labels == label].sum(axis=0)
    return _unit(sums).astype(np.float32)


def similarity(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The cosine between the features (images, …) and the nearest class mean, float64 (images,)."""
    return (_unit(features) @ means.T).max(axis=1)


def fit_limit(similarities: np.ndarray, false_alarms: float) -> float:
    """Find the similarity below which an image belongs to none of the classes.

    Args:
        similarities: those of validation images, (images,), which all belong to a class.
        false_alarms: the largest share of them that may lie below.

    Returns:
        The similarity, rounded down to six digits, so that the last bits of a product do not change it.
    """
    ordered = np.sort(similarities)
    return float(np.floor(ordered[int(len(ordered) * false_alarms)] * 1e6) / 1e6)


def _unit(features: np.ndarray) -> np.ndarray:
    """Flatten features to vectors of length 1, float64: its sums round alike on every machine once they are float32."""
    flat = features.reshape(len(features), -1).astype(np.float64)
    return flat / np.maximum(np.sqrt((flat**2).sum(axis=1, keepdims=True)), TINY)
