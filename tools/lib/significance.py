"""Intervals and tests of accuracies. An accuracy is a pair: the accuracy and its number of images."""

import math

import numpy as np
import pandas as pd
from scipy.stats import binomtest, fisher_exact

from stages.evaluation.metrics import wilson
from stages.evaluation.predictions import Predictions

Accuracy = tuple[float, int]


class Untestable(Exception):
    """Why two models cannot be tested."""


def paired_test(before: Predictions, after: Predictions) -> tuple[int, int, float]:
    """Exact McNemar test (McNemar, "Note on the sampling error of the difference", 1947) of two models' predictions.

    If neither model is better, an image that only one of them classifies correctly is equally likely to be either's.
    The p-value is that of a fair coin, two-sided, and exact for any number of images.

    Returns:
        The images that only the first model classifies correctly, those that only the second does, and the p-value.

    Raises:
        Untestable: the models were not tested on the same images, in whatever order, with the same labels.
    """
    old, new = (
        pd.DataFrame({"true": np.asarray(side.classes)[side.true], "correct": side.correct}, side.keys).sort_index()
        for side in (before, after)
    )
    if not old.index.equals(new.index):
        raise Untestable("other test images")
    if not old["true"].equals(new["true"]):
        raise Untestable("other labels of the test images")
    lost, gained = int((old.correct & ~new.correct).sum()), int((~old.correct & new.correct).sum())
    return lost, gained, float(binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0


def accuracy_test(before: Accuracy, after: Accuracy) -> float:
    """P-value of Fisher's exact test of two accuracies, two-sided.

    It takes the images as independent, as the predictions for validation images are not stored. On the same images it
    finds fewer differences than a paired test would, and none more often than the level says.
    """
    counts = [(round(accuracy * images), images) for accuracy, images in (before, after)]
    return float(fisher_exact([[correct, images - correct] for correct, images in counts]).pvalue)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """P-values adjusted for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    The chance of any false verdict is then 5 % for all models together instead of 5 % for each: with thirteen changed
    models, every second review would otherwise contain one.
    """
    ordered = pd.Series(p_values, dtype=float).sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1).to_dict()


def difference(first: Accuracy, second: Accuracy) -> tuple[float, float]:
    """95 % interval of the first accuracy less the second.

    Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10. Two models on
    the same images are not independent: the true interval is narrower, so the difference is rarely overstated.
    """
    (a, _), (b, _) = first, second
    (a_low, a_high), (b_low, b_high) = wilson(*first), wilson(*second)
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
