"""Temperature and threshold: probabilities that mean what they say, and a model that says when it is not sure."""

import numpy as np
import pytest

from stages.prediction.calibration import NEVER_SURE, fit_temperature, fit_threshold, with_temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_recovers_how_much_too_sure_a_model_is(factor: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 5))
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in softmax(logits).astype(float)])
    temperature = fit_temperature(softmax(factor * logits), labels)
    assert temperature == pytest.approx(factor, rel=0.1)
    np.testing.assert_allclose(with_temperature(softmax(factor * logits), factor), softmax(logits), rtol=1e-4)


def test_few_images_that_are_all_correct_do_not_make_a_model_sure_of_everything() -> None:
    probabilities = softmax(np.tile([1.0, 0.0, 0.0], (10, 1)))
    found = with_temperature(probabilities, fit_temperature(probabilities, np.zeros(10, int)))
    assert 0.6 < found.max() < 0.95


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_no_temperature_changes_the_class_of_an_image(temperature: float) -> None:
    probabilities = softmax(np.random.default_rng(1).normal(scale=5, size=(500, 20)))
    probabilities[0] = 0, np.nextafter(np.float32(0.5), np.float32(1)), 0.5, *[0] * 17  # closer than float32 tells
    probabilities[1] = 0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), *[0] * 17
    scaled = with_temperature(probabilities, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-5)


def test_temperature_of_impossible_and_not_finite_probabilities_is_a_number() -> None:
    wrong = np.tile(np.array([1, 0], np.float32), (5, 1))
    assert 1 < fit_temperature(wrong, np.ones(5, int)) < 21
    wrong[0, 0] = np.nan
    assert fit_temperature(wrong, np.ones(5, int)) == 1


def test_threshold_is_the_lowest_confidence_whose_answers_are_accurate_enough() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    correct = np.array([True, True, False, True, False])
    assert fit_threshold(confidence, correct, 0.7) == 0.7
    assert fit_threshold(confidence, correct, 0.9) == 0.9  # not between two images that are equally sure
    assert fit_threshold(confidence, correct, 0.5) == 0.6
    assert fit_threshold(confidence, ~correct, 0.9) == NEVER_SURE
    assert fit_threshold(np.array([0.7312345], np.float32), np.array([True]), 0.9) == 0.731234
