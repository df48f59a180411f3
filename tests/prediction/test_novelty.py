"""Similarity to the class means: which images belong to none of the classes."""

import numpy as np
import pytest

from stages.data.arrays import SplitArrays
from stages.prediction.novelty import class_means, fit_limit, similarity


def test_similarity_is_the_cosine_to_the_nearest_class_mean_whatever_the_parts_and_the_lengths() -> None:
    features = np.array([[[2, 0, 0]], [[1, 1, 0]], [[0, 0, 9]], [[0, 0, 0]]], np.float16)
    keys, labels = np.array(list("abcd"), object), np.array([0, 0, 1, 1], np.int32)
    parts = [SplitArrays(keys[rows], features[rows], labels[rows]) for rows in (slice(3), slice(3, 4))]
    means = class_means(parts, 3)
    assert means.shape == (3, 3) and means.dtype == np.float32
    np.testing.assert_allclose(means[1:], [[0, 0, 1], [0, 0, 0]])  # the last class has no image
    found = similarity(np.array([[2, 0, 0], [0, 0, 1], [0, 7, 0], [0, 0, 0]], np.float16), means)
    np.testing.assert_allclose(found, [np.cos(np.pi / 8), 1, np.sin(np.pi / 8), 0], atol=1e-3)


@pytest.mark.parametrize(("share", "below"), [(0.05, 5), (0.001, 0), (0.5, 50)])
def test_limit_has_the_share_of_validation_images_below(share: float, below: int) -> None:
    similarities = np.random.default_rng(0).random(100)
    assert (similarities < fit_limit(similarities, share)).sum() == below
