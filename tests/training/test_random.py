"""Stateless random numbers, against the same hash in NumPy and against their distributions."""

from typing import Any

import numpy as np
import pytest

from stages.training import random
from stages.training.augment import Batch


def batch_of(indices: Any, epoch: int = 0) -> Batch:
    """Examples of which only the indices and the epoch matter."""
    import tensorflow as tf

    return Batch(None, None, tf.constant(indices, tf.int64), tf.constant(epoch, tf.int64), 10, len(indices))


def mix(value: Any) -> Any:
    value = np.asarray(value, np.uint64)
    for _ in range(2):
        value = ((value >> np.uint64(16)) ^ value) * np.uint64(0x45D9F3B) % np.uint64(2**32)
    return (value >> np.uint64(16)) ^ value


def test_uniform_is_the_hash_of_seed_epoch_index_and_place() -> None:
    indices, places = np.array([0, 7, 49_999]), np.arange(1, 5)
    states = mix(mix(mix(42) ^ np.uint64(3)) ^ indices.astype(np.uint64))
    numbers = mix((states[:, None] + np.uint64(0x9E3779B9) * places.astype(np.uint64)) % np.uint64(2**32))
    found = random.uniform(42, batch_of(indices, epoch=3), 4).numpy()
    assert found.dtype == np.float32
    assert np.array_equal(found, (numbers >> np.uint64(8)) / 2**24)


def test_uniform_does_not_depend_on_the_split_of_a_batch() -> None:
    whole = random.uniform(1, batch_of(range(10)), 3).numpy()
    halves = [random.uniform(1, batch_of(range(start, 10, 2)), 3).numpy() for start in (0, 1)]
    assert np.array_equal(whole[::2], halves[0])
    assert np.array_equal(whole[1::2], halves[1])
    assert np.array_equal(random.uniform(1, batch_of(range(10)), 2).numpy(), whole[:, :2])


def test_uniform_has_even_and_uncorrelated_numbers() -> None:
    images = 20_000
    streams = [(1, 0), (2, 0), (1, 1), (2**32 - 1, 0)]  # seed and epoch
    numbers = np.concatenate([random.uniform(seed, batch_of(range(images), epoch), 3) for seed, epoch in streams], 1)
    counts = np.array([np.histogram(column, 50, (0, 1))[0] for column in numbers.T])
    chi_square = ((counts - images / 50) ** 2 / (images / 50)).sum(axis=1)
    assert (chi_square < 100).all()  # 49 degrees of freedom: more than 100 once in 50,000 columns
    neighbors = np.concatenate([numbers[1:], numbers[:-1]], axis=1)
    correlation = np.corrcoef(neighbors, rowvar=False)
    np.fill_diagonal(correlation, 0)
    assert abs(correlation).max() < 5 / images**0.5


def test_integers_reach_every_value_below_their_bounds_equally_often() -> None:
    first, second = random.integers(5, batch_of(range(30_000)), [3, 5]).numpy().T
    for values, bound in ((first, 3), (second, 5)):
        counts = np.bincount(values)
        assert len(counts) == bound
        assert abs(counts / 30_000 - 1 / bound).max() < 0.015


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_beta_has_the_quantiles_of_its_distribution(alpha: float) -> None:
    from scipy.stats import beta

    found = random.beta(3, batch_of(range(20_000)), alpha).numpy()
    assert np.isfinite(found).all()
    limits = np.array([0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
    shares = (found[:, None] < limits).mean(axis=0)
    np.testing.assert_allclose(shares, beta.cdf(limits, alpha, alpha), atol=4 * 0.5 / 20_000**0.5)


def test_normal_has_the_quantiles_of_its_distribution_and_is_finite() -> None:
    from scipy.stats import norm

    numbers = np.array([0, 0.01, 0.5, 0.9, 1 - 2**-24], np.float32)
    found = random.normal(numbers).numpy()
    np.testing.assert_allclose(found[1:4], norm.ppf(numbers[1:4].astype(float)), atol=1e-5)
    assert np.isfinite(found).all()
