"""Label errors by confident learning (Northcutt et al., 2021) on out-of-sample predictions.

The predictions are those of a ridge regression on fixed features: its closed form gives all folds for little more than
the cost of one, and it does not learn single labels by heart. Copies of an image are in the same fold.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.auditing import feature_matrix as features
from stages.auditing.images import Images

if TYPE_CHECKING:
    import pandas as pd

PENALTY = 0.01  # of the ridge regression, for each image
BLOCK = 2**14  # images that are computed with at once


def find(images: Images, records: str, is_feature_set: bool, folds: int) -> tuple["pd.DataFrame", float]:
    """Probable label errors as rows image, kind, score, partner, predicted; and the accuracy of the predictions.

    The score is the probability of the given label, the partner is -1, and `predicted` is the label that the model
    gives. Time and memory grow with images × classes: 40 bytes each.

    Args:
        images: of a dataset.
        records: that features are taken from, as in `features.load`.
        is_feature_set: as in `features.load`.
        folds: number of parts, each of which is predicted from the others.
    """
    import pandas as pd
    from cleanlab.filter import find_label_issues

    matrix = features.load(images, records, is_feature_set)
    _, content = np.unique(images.digests, return_inverse=True)  # in the order of hashes, which is random
    scores = _out_of_sample_scores(matrix, images.labels, len(images.classes), content % folds, folds)
    probabilities = _calibrated(scores, images.labels)
    predicted = probabilities.argmax(axis=1)
    wrong = find_label_issues(images.labels, probabilities, filter_by="both", n_jobs=1) & (predicted != images.labels)
    image = np.flatnonzero(wrong)
    score = probabilities[image, images.labels[image]]
    found = {"image": image, "kind": "label_error", "score": score, "partner": -1, "predicted": predicted[image]}
    return pd.DataFrame(found), float(np.mean(predicted == images.labels))


def _out_of_sample_scores(
    matrix: np.ndarray, labels: np.ndarray, classes: int, fold: np.ndarray, folds: int
) -> np.ndarray:
    """Scores (n, classes) float64 of a ridge regression on the images of all folds but an image's own."""
    width = matrix.shape[1]
    products = np.zeros((folds, width, width))
    targets = np.zeros((folds, width, classes))
    for number, rows in _blocks(fold, folds):
        inputs = matrix[rows].astype(np.float32)
        products[number] += inputs.T @ inputs
        targets[number] += inputs.T @ np.eye(classes, dtype=np.float32)[labels[rows]]
    total, goal = products.sum(axis=0), targets.sum(axis=0)
    penalty = PENALTY * len(labels) * np.eye(width)
    penalty[-1, -1] = 1e-6  # the constant
    weights = [np.linalg.solve(total - products[each] + penalty, goal - targets[each]) for each in range(folds)]
    scores = np.empty((len(labels), classes))
    for number, rows in _blocks(fold, folds):
        scores[rows] = matrix[rows].astype(np.float32) @ weights[number]
    return scores


def _blocks(fold: np.ndarray, folds: int) -> list[tuple[int, np.ndarray]]:
    """The images of each fold, at most `BLOCK` at a time."""
    return [
        (number, rows[start : start + BLOCK])
        for number in range(folds)
        for rows in [np.flatnonzero(fold == number)]
        for start in range(0, len(rows), BLOCK)
    ]


def _calibrated(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes): the softmax of the scores at the temperature that fits the labels best."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    own = np.arange(len(labels)), labels

    def loss(log_factor: float) -> float:
        return -float(log_softmax(scores * np.exp(log_factor), axis=1)[own].mean())

    best = minimize_scalar(loss, bounds=(-2, 6), method="bounded").x
    return softmax(scores * np.exp(best), axis=1)
