"""Confidence intervals of accuracies."""

import math

from scipy.stats import binomtest

Interval = tuple[float, float]


def wilson(accuracy: float, images: int) -> Interval:
    """95 % interval of an accuracy (Wilson, "Probable inference", 1927)."""
    found = binomtest(round(accuracy * images), images).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def difference(first: tuple[float, int], second: tuple[float, int]) -> Interval:
    """95 % interval of the first accuracy less the second; each is an accuracy and its number of images.

    Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10. Two models on
    the same images are not independent: the true interval is narrower, so the difference is rarely overstated.
    """
    (low, high), (low_second, high_second) = wilson(*first), wilson(*second)
    gap = first[0] - second[0]
    return gap - math.hypot(first[0] - low, high_second - second[0]), gap + math.hypot(
        high - first[0], second[0] - low_second
    )
