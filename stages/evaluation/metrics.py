"""Metrics of predictions. A metric is one function here: JSON, MLflow, page and tables find it by its decorator.

@metric("Macro-F1", "{:.3f}", column=True)
def macro_f1(predictions: Predictions) -> float: ...
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.evaluation.predictions import Predictions
from stages.runtime.errors import UserError

CALIBRATION_BINS = 15
DIGITS = 6  # as many as float32 probabilities carry, and as a reviewer can read in a diff
Z = 1.959963984540054  # the standard normal distribution's 97.5 % quantile, of a 95 % interval

Function = Callable[[Predictions], float | None]  # None: does not apply to these predictions


class Metric(NamedTuple):
    """A metric, and how the report shows it: nowhere without a label, as a column of its tables if `column` is set.

    A function that returns None does not apply to the model: its metrics and its row in the tables are without it.
    """

    function: Function
    label: str
    number_format: str
    column: bool


METRICS: dict[str, Metric] = {}  # by the names of the functions, in the order of this file


def metric(label: str = "", number_format: str = "{:,}", column: bool = False) -> Callable[[Function], Function]:
    """Register a function as a metric under its own name."""

    def register(function: Function) -> Function:
        METRICS[function.__name__] = Metric(function, label, number_format, column)
        return function

    return register


def compute(predictions: Predictions) -> dict[str, float]:
    """Every metric that applies by its name; numbers with a fraction are rounded.

    Raises:
        UserError: a metric is not a finite number, which JSON cannot hold.
    """
    found = {name: entry.function(predictions) for name, entry in METRICS.items()}
    values = {name: value for name, value in found.items() if value is not None}
    for name, value in values.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(
                f"stages/evaluation/metrics.py: {name}: {value!r}: it should be one finite number, or None where "
                "it does not apply"
            )
    return {
        name: int(value) if isinstance(value, Integral) else round(float(value), DIGITS)
        for name, value in values.items()
    }


def not_in_pretraining(predictions: Predictions, pattern: str) -> dict[str, float]:
    """Number of the images whose file names match a pattern, and the accuracy on them alone if there are any.

    The backbone of a feature set may have been trained on the other ones.
    """
    chosen = np.array([fnmatchcase(key.rsplit("/", 1)[-1], pattern) for key in predictions.keys], bool)
    values: dict[str, float] = {"not_in_pretraining_images": int(chosen.sum())}
    if chosen.any():
        values["not_in_pretraining_accuracy"] = round(float(predictions.correct[chosen].mean()), DIGITS)
    return values


@metric()
def images(predictions: Predictions) -> int:
    """Number of test images."""
    return len(predictions.true)


@metric("Test accuracy", "{:.2%}")
def accuracy(predictions: Predictions) -> float:
    """Share of correct predictions."""
    return float(predictions.correct.mean())


@metric("Without TTA", "{:.2%}", column=True)
def accuracy_without_tta(predictions: Predictions) -> float | None:
    """Accuracy without test-time augmentation, of models that have it; all other metrics are with it."""
    if predictions.predicted_without_tta is None:
        return None
    return float(np.equal(predictions.true, predictions.predicted_without_tta).mean())


@metric()
def accuracy_low(predictions: Predictions) -> float:
    """Lower bound of the accuracy's 95 % Wilson interval."""
    return wilson(float(predictions.correct.mean()), len(predictions.true))[0]


@metric()
def accuracy_high(predictions: Predictions) -> float:
    """Upper bound of the accuracy's 95 % Wilson interval."""
    return wilson(float(predictions.correct.mean()), len(predictions.true))[1]


@metric("Loss", "{:.3f}")
def loss(predictions: Predictions) -> float:
    """Mean cross-entropy in nats, of probabilities that are normalized in float64."""
    rows = predictions.probabilities.astype(float)
    chosen = rows[np.arange(len(rows)), predictions.true] / rows.sum(axis=1)
    return -float(np.log(np.clip(chosen, np.finfo(float).eps, 1)).mean())


@metric("Macro-F1", "{:.3f}", column=True)
def macro_f1(predictions: Predictions) -> float:
    """Mean F1 of the classes that occur in the test split."""
    scores = class_scores(predictions)
    return float(scores.loc[scores["images"] > 0, "f1"].mean())


@metric("Top 3", "{:.2%}")
def top3_accuracy(predictions: Predictions) -> float:
    """Share of images whose class is among the three most probable; of equal probabilities, the later class leads."""
    true, found = predictions.true, predictions.probabilities
    own = found[np.arange(len(true)), true][:, None]
    later = np.arange(found.shape[1]) > true[:, None]
    ahead = ((found > own) | ((found == own) & later)).sum(axis=1)
    return float((ahead < 3).mean())


@metric("ECE", "{:.3f}")
def ece(predictions: Predictions) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., "On calibration", 2017)."""
    return calibration_error(calibration_bins(predictions.confidence, predictions.correct))


@metric("Answered", "{:.1%}")
def answered(predictions: Predictions) -> float | None:
    """Share of images that a model with `abstain` is sure of."""
    sure = _sure(predictions)
    return None if sure is None else float(sure.mean())


@metric("Accuracy of answers", "{:.2%}")
def answered_accuracy(predictions: Predictions) -> float | None:
    """Share of correct predictions among the images that a model with `abstain` is sure of."""
    sure = _sure(predictions)
    return None if sure is None or not sure.any() else float(predictions.correct[sure].mean())


def _sure(predictions: Predictions) -> np.ndarray | None:
    limit = predictions.not_sure_below
    return None if limit is None else predictions.confidence >= limit


def class_scores(predictions: Predictions) -> pd.DataFrame:
    """Precision, recall, F1 (0 where they are not defined) and number of images of each class, by label."""
    classes = len(predictions.classes)
    images = np.bincount(predictions.true, minlength=classes)
    predicted = np.bincount(predictions.predicted, minlength=classes)
    hits = np.bincount(predictions.true[predictions.correct], minlength=classes)
    return pd.DataFrame(
        {
            "precision": hits / np.maximum(predicted, 1),
            "recall": hits / np.maximum(images, 1),
            "f1": 2 * hits / np.maximum(images + predicted, 1),
            "images": images,
        }
    )


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Bounds, mean confidence, accuracy and number of images of each of 15 equal bins of confidence that has any."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    images = np.bincount(bins, minlength=CALIBRATION_BINS)
    bounds = np.linspace(0, 1, CALIBRATION_BINS + 1)
    table = pd.DataFrame({"low": bounds[:-1], "high": bounds[1:]})
    for column, values in (("confidence", confidence), ("accuracy", correct)):
        table[column] = np.bincount(bins, values, CALIBRATION_BINS) / np.maximum(images, 1)
    return table.assign(images=images)[images > 0]


def calibration_error(bins: pd.DataFrame) -> float:
    """The expected calibration error of bins from `calibration_bins`."""
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["images"]))


def wilson(share: float, number: int) -> tuple[float, float]:
    """The 95 % interval of a share of `number` images (Wilson, "Probable inference", 1927)."""
    center = share + Z**2 / (2 * number)
    radius = Z * (share * (1 - share) / number + Z**2 / (4 * number**2)) ** 0.5
    scale = 1 + Z**2 / number
    # Rounding must not lead outside of [0, 1], nor off a bound that is exact
    low = 0.0 if share == 0 else (center - radius) / scale
    high = 1.0 if share == 1 else (center + radius) / scale
    return low, high
