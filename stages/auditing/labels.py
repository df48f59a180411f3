"""Label errors by confident learning (Northcutt et al., 2021) on out-of-sample predictions.

The predictions are those of a ridge regression on fixed features: it has a closed form, and does not learn single
labels by heart. Copies of an image are in the same fold.
"""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stages.auditing.images import Images
from stages.runtime.errors import UserError
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

PENALTY = 0.01  # of the ridge regression, for each image
SIDE = 32  # pixels of an image that patches are compared with
FILTERS, PATCH = 128, 6
PATCHES = 20_000  # that are whitened
SAMPLED = 5_000  # images that the patches are taken from
WHITENING = 0.01  # added to the variances, of pixels from 0 to 1
THRESHOLD = 0.25  # a filter responds to what exceeds this
BATCH = 250


def find(images: Images, records: str, is_feature_set: bool, folds: int) -> tuple["pd.DataFrame", float]:
    """Probable label errors as rows image, kind, score, partner, predicted; and the accuracy of the predictions.

    The score is the probability of the given label, the partner is -1, and `predicted` is the label that the model
    gives. Time and memory grow with images × classes.

    Args:
        images: of a dataset.
        records: the name of records with the same keys: the images themselves, or a feature set.
        is_feature_set: whether they are features. These are averaged over their positions. Of images, 128 random
            patches are filters; their positive and negative responses are averaged over the quarters of the image
            (Coates and Ng, "The importance of encoding", 2011), which gives 1,024 features.
        folds: number of parts, each of which is predicted from the others.

    Raises:
        UserError: the records do not belong to the images.
    """
    import pandas as pd
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    matrix = StandardScaler(copy=False).fit_transform(_features(images, records, is_feature_set))
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


def _features(images: Images, records: str, is_feature_set: bool) -> np.ndarray:
    """The features of all images, (n, features) float32, in their order."""
    from stages.data import reader

    size = None if is_feature_set else SIDE
    batches = itertools.chain.from_iterable(reader.batches(records, split, BATCH, size) for split in images.splits)
    first = list(itertools.islice(batches, SAMPLED // BATCH))
    compute = _average if is_feature_set else _patch_filters(np.concatenate([batch["input"] for batch in first]))
    keys, rows = [], []
    work = itertools.chain(first, batches)
    for batch in progress(work, len(images.keys), f"{records}: features", "images", lambda batch: len(batch["key"])):
        keys += [key.decode() for key in batch["key"]]
        rows.append(compute(batch["input"]))
    if keys != list(images.keys):
        raise UserError(f"data/records/{records}: other images than those of the audit; run `dvc repro` first")
    return np.concatenate(rows)


def _average(inputs: np.ndarray) -> np.ndarray:
    """Features averaged over all axes but the first and the last."""
    return inputs.astype(np.float32).reshape(len(inputs), -1, inputs.shape[-1]).mean(axis=1)


def _patch_filters(inputs: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a batch of uint8 images to what whitened patches of `inputs` respond with."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    number, side = len(inputs), SIDE - PATCH + 1
    corners = zip(random.integers(0, number, PATCHES), *random.integers(0, side, (2, PATCHES)), strict=True)
    patches = np.stack([inputs[at, top : top + PATCH, left : left + PATCH] for at, top, left in corners])
    patches = patches.reshape(PATCHES, -1) / 255.0
    mean = patches.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
    whitening = axes / np.sqrt(values + WHITENING) @ axes.T
    whitened = (patches - mean) @ whitening
    lengths = np.linalg.norm(whitened, axis=1)
    chosen = np.flatnonzero(lengths > np.percentile(lengths, 30))[:FILTERS]  # the others show plain background
    chosen = chosen if len(chosen) else np.arange(FILTERS)  # if all images are blank, they all do
    flat = whitening @ (whitened[chosen] / np.maximum(lengths[chosen, None], 1e-6)).T
    filters = flat.reshape(PATCH, PATCH, inputs.shape[-1], -1).astype(np.float32)
    bias = (-mean @ flat).astype(np.float32)

    def respond(images: "tf.Tensor") -> "tf.Tensor":
        found = tf.nn.conv2d(tf.cast(images, tf.float32) / 255, filters, 1, "VALID") + bias
        found = tf.concat([tf.nn.relu(found - THRESHOLD), tf.nn.relu(-found - THRESHOLD)], axis=-1)
        half = -(-side // 2)
        return tf.reshape(tf.nn.avg_pool2d(found, half, half, "SAME"), [tf.shape(images)[0], -1])

    graph = tf.function(respond)
    return lambda batch: graph(tf.constant(batch)).numpy()
