"""Intervals and tests of accuracies."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, fisher_exact

from stages.evaluation.metrics import wilson
from stages.evaluation.predictions import Predictions

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedTest:
    """A paired test of two models on the same images.

    lost: images that only the first model classifies correctly. gained: images that only the second does. p: of the
    exact McNemar test.
    """

    lost: int
    gained: int
    p: float


def paired_test(before: Predictions, after: Predictions) -> PairedTest | str:
    """Exact McNemar test (McNemar, "Note on the sampling error of the difference", 1947) of two models' predictions.

    If neither model is better, an image that only one of them classifies correctly is equally likely to be either's.
    The p-value is that of a fair coin, two-sided, and exact for any number of images.

    Returns:
        The test, whatever the order of the images; or the reason why there is none.
    """
    order_before, order_after = np.argsort(before.keys), np.argsort(after.keys)
    if not np.array_equal(before.keys[order_before], after.keys[order_after]):
        return "other test images"
    labels = [
        np.asarray(predictions.classes)[predictions.true[order]]
        for predictions, order in ((before, order_before), (after, order_after))
    ]
    if not np.array_equal(*labels):
        return "other labels of the test images"
    correct_before, correct_after = before.correct[order_before], after.correct[order_after]
    lost, gained = int((correct_before & ~correct_after).sum()), int((~correct_before & correct_after).sum())
    return PairedTest(lost, gained, float(binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0)


def accuracy_test(before: tuple[float, int], after: tuple[float, int]) -> float:
    """P-value of Fisher's exact test of two accuracies, each with its number of images, two-sided.

    It takes the images as independent, as the predictions for validation images are not stored. On the same images it
    finds fewer differences than a paired test would, and none more often than the level says.
    """
    counts = [(round(accuracy * images), images) for accuracy, images in (before, after)]
    return float(fisher_exact([[correct, images - correct] for correct, images in counts]).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    The chance of any false verdict is then 5 % for all models together instead of 5 % for each: with thirteen changed
    models, every second review would otherwise contain one.
    """
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


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
