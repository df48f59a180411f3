"""The metrics, against values that are worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stages.evaluation import metrics
from stages.evaluation.predictions import Predictions
from stages.runtime.errors import UserError
from tests.reporting.project import make_predictions

CLASSES = ["cat", "dog", "eel", "fox"]
FOUR = make_predictions(
    [0, 1, 1, 2],
    [[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.5, 0.1, 0.2, 0.2], [0.1, 0.1, 0.6, 0.2]],
    CLASSES,
    ["n0/n0_0.JPEG", "n0/ILSVRC2012_val_1.JPEG", "n0/n0_2.JPEG", "n0/ILSVRC2012_val_3.JPEG"],
)


def test_metrics_of_four_images_are_the_values_by_hand() -> None:
    found = metrics.compute(FOUR)
    assert found["images"] == 4
    assert found["accuracy"] == 0.75
    # Wilson: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.75, n = 4, z = 1.959964
    assert found["accuracy_low"] == pytest.approx(0.300642, abs=1e-6)
    assert found["accuracy_high"] == pytest.approx(0.954413, abs=1e-6)
    assert found["loss"] == pytest.approx(-(math.log(0.7) + 2 * math.log(0.6) + math.log(0.1)) / 4, abs=1e-6)
    # F1: cat 2/3 (one dog is taken for a cat), dog 2/3, eel 1; no fox occurs or is predicted
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-6)
    assert found["top3_accuracy"] == 0.75  # dog is the least probable class of the third image
    # bins of 1/15: 0.7 correct alone, 0.6 twice correct, 0.5 wrong
    assert found["ece"] == pytest.approx((0.3 + 2 * 0.4 + 0.5) / 4, abs=1e-6)


def test_accuracy_without_tta_is_that_of_its_own_predictions() -> None:
    assert "accuracy_without_tta" not in metrics.compute(FOUR)
    labels = np.array([0, 0, 0, 0], np.int32)
    assert metrics.compute(replace(FOUR, predicted_without_tta=labels))["accuracy_without_tta"] == 0.25


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 3])
def test_metrics_of_a_single_class_are_defined(count: int) -> None:
    found = metrics.compute(make_predictions([1] * count, [[0.1, 0.7, 0.1, 0.1]] * count, CLASSES))
    assert (found["accuracy"], found["accuracy_high"], found["macro_f1"], found["top3_accuracy"]) == (1, 1, 1, 1)
    assert found["loss"] == pytest.approx(-math.log(0.7), abs=1e-6)


def test_top3_accuracy_of_three_classes_is_one() -> None:
    assert metrics.top3_accuracy(make_predictions([2, 2], [[0.5, 0.3, 0.2]] * 2, ["a", "b", "c"])) == 1


def test_macro_f1_with_a_predicted_class_that_does_not_occur_is_over_the_classes_that_occur() -> None:
    true = [0] * 50 + [1] * 50
    probabilities = np.eye(3)[[*true[:-1], 2]]  # one image is taken for the absent class
    found = metrics.macro_f1(make_predictions(true, probabilities, ["a", "b", "absent"]))
    assert found == pytest.approx((1 + 2 * 49 / (50 + 49)) / 2)


def test_calibration_bins_leave_out_empty_bins_and_include_upper_bounds() -> None:
    table = metrics.calibration_bins(FOUR.confidence, FOUR.correct)
    assert table["images"].tolist() == [1, 2, 1]  # at 0.5, 0.6 and 0.7
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert table["accuracy"].tolist() == [0, 1, 1]
    assert table["high"].tolist() == pytest.approx([8 / 15, 10 / 15, 11 / 15])
    certain = metrics.calibration_bins(np.array([1.0]), np.array([True]))
    assert certain["high"].tolist() == [1]


def test_not_in_pretraining_counts_the_file_names_that_match() -> None:
    def found(pattern: str) -> dict[str, float]:
        return metrics.not_in_pretraining(FOUR, pattern)

    assert found("ILSVRC2012_val_*") == {"not_in_pretraining_images": 2, "not_in_pretraining_accuracy": 1.0}
    assert found("n0_*") == {"not_in_pretraining_images": 2, "not_in_pretraining_accuracy": 0.5}
    assert found("nothing*") == {"not_in_pretraining_images": 0}


def test_a_new_metric_is_found_by_its_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))

    @metrics.metric("Error", "{:.1%}", column=True)
    def error(predictions: Predictions) -> float:
        return 1 - float(predictions.correct.mean())

    assert metrics.compute(FOUR)["error"] == 0.25
    assert metrics.METRICS["error"].label == "Error"


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), np.ones(2), "0.5"])
def test_a_metric_that_is_not_a_finite_number_is_named(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(metrics, "METRICS", {})
    metrics.metric()(lambda predictions: value)
    with pytest.raises(UserError, match=r"^stages/evaluation/metrics.py: <lambda>: .*: it should be one finite number"):
        metrics.compute(FOUR)


def test_a_number_of_numpy_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", {})
    metrics.metric()(lambda predictions: np.int64(347))  # type: ignore[arg-type, return-value]
    assert repr(metrics.compute(FOUR)) == "{'<lambda>': 347}"
