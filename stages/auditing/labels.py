"""Label errors by confident learning (Northcutt et al., 2021) on out-of-sample predictions.

The predictions are those of a ridge regression on fixed features: it has a closed form, and does not learn single
labels by heart. Copies of an image are in the same fold.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.auditing import feature_matrix as features
from stages.auditing.images import Images

if TYPE_CHECKING:
    import pandas as pd

PENALTY = 0.01  # of the ridge regression, for each image


def find(images: Images, records: str, is_feature_set: bool, folds: int) -> tuple["pd.DataFrame", float]:
    """Probable label errors as rows image, kind, score, partner, predicted; and the accuracy of the predictions.

    The score is the probability of the given label, the partner is -1, and `predicted` is the label that the model
    gives. Time and memory grow with images × classes.

    Args:
        images: of a dataset.
        records: that features are taken from, as in `features.load`.
        is_feature_set: as in `features.load`.
        folds: number of parts, each of which is predicted from the others.
    """
    import pandas as pd
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    matrix = features.load(images, records, is_feature_set)
    _, content = np.unique(images.digests, return_inverse=True)  # in the order of hashes, which is random
    fold = content % folds if content.max() else np.arange(len(content)) % folds  # if all images are the same
    model = Ridge(PENALTY * len(matrix), copy_X=False, solver="cholesky")
    targets = np.eye(len(images.classes), dtype=np.float32)[images.labels]
    scores = cross_val_predict(model, matrix, targets, cv=PredefinedSplit(fold))
    probabilities = _calibrated(scores, images.labels)
    predicted = probabilities.argmax(axis=1)
    wrong = find_label_issues(images.labels, probabilities, filter_by="both", n_jobs=1) & (predicted != images.labels)
    image = np.flatnonzero(wrong)
    score = probabilities[image, images.labels[image]]
    found = {"image": image, "kind": "label_error", "score": score, "partner": -1, "predicted": predicted[image]}
    return pd.DataFrame(found), float(np.mean(predicted == images.labels))


def _calibrated(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes): the softmax of the scores at the temperature that fits the labels best."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    own = np.arange(len(labels)), labels

    def loss(log_factor: float) -> float:
        return -float(log_softmax(scores * np.exp(log_factor), axis=1)[own].mean())

    best = minimize_scalar(loss, bounds=(-2, 6), method="bounded").x
    return softmax(scores * np.exp(best), axis=1)
