"""Fixed features of all images of a dataset, for a linear model: those of a backbone, or of random patches."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from stages.auditing.images import Images
from stages.runtime.errors import UserError
from stages.runtime.progress import progress

SIDE = 32  # pixels of an image that patches are compared with
FILTERS, PATCH = 128, 6
PATCHES = 20_000  # that are whitened
SAMPLED = 5_000  # images that the patches and the scale of the features are taken from
WHITENING = 0.01  # added to the variances, of pixels from 0 to 1
THRESHOLD = 0.25  # a filter responds to what exceeds this
BATCH = 250
SEED = 0

Compute = Callable[[np.ndarray], np.ndarray]  # a batch of inputs → (batch, features) float32


def load(images: Images, records: str, is_feature_set: bool) -> np.ndarray:
    """Compute features of mean 0 and variance 1, (n, features) float32, in the order of the images.

    Args:
        images: of a dataset.
        records: the name of records with the same keys: the images themselves, or a feature set.
        is_feature_set: whether they are features. These are averaged over their positions. Of images, 128 random
            patches are filters; their positive and negative responses are averaged over the quarters of the image
            (Coates and Ng, "The importance of encoding", 2011), which gives 1,024 features.

    Raises:
        UserError: the records do not belong to the images.
    """
    size = None if is_feature_set else SIDE
    batches = _batches(records, images.splits, size)
    first = list(itertools.islice(batches, SAMPLED // BATCH))
    compute = _average if is_feature_set else _patch_filters(np.concatenate([inputs for _, inputs in first]))
    sample = np.concatenate([compute(inputs) for _, inputs in first])
    mean, deviation = sample.mean(axis=0), sample.std(axis=0) + 1e-4
    matrix = np.empty((len(images.keys), sample.shape[1]), np.float32)
    start = 0
    work = itertools.chain(first, batches)
    for keys, inputs in progress(work, len(matrix), f"{records}: features", "images", lambda item: len(item[0])):
        stop = start + len(keys)
        if list(images.keys[start:stop]) != keys:
            raise UserError(f"data/records/{records}: other images than those of the audit; run `dvc repro` first")
        matrix[start:stop] = (compute(inputs) - mean) / deviation
        start = stop
    return matrix


def _batches(records: str, splits: list[str], size: int | None) -> Iterator[tuple[list[str], np.ndarray]]:
    """Keys and inputs of all splits in batches."""
    from stages.data import reader

    for split in splits:
        for batch in reader.batches(records, split, BATCH, size):
            yield [key.decode() for key in batch["key"]], batch["input"]


def _average(inputs: np.ndarray) -> np.ndarray:
    """Features averaged over all axes but the first and the last."""
    return inputs.astype(np.float32).reshape(len(inputs), -1, inputs.shape[-1]).mean(axis=1)


def _patch_filters(inputs: np.ndarray) -> Compute:
    """A function from a batch of uint8 images to what whitened patches of `inputs` respond with."""
    import tensorflow as tf

    random = np.random.default_rng(SEED)
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

    def respond(images: tf.Tensor) -> tf.Tensor:
        found = tf.nn.conv2d(tf.cast(images, tf.float32) / 255, filters, 1, "VALID") + bias
        found = tf.concat([tf.nn.relu(found - THRESHOLD), tf.nn.relu(-found - THRESHOLD)], axis=-1)
        half = -(-side // 2)
        return tf.reshape(tf.nn.avg_pool2d(found, half, half, "SAME"), [tf.shape(images)[0], -1])

    graph = tf.function(respond)
    return lambda batch: graph(tf.constant(batch)).numpy()
