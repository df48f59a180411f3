"""The stage `evaluate`."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import evaluate
from stages.evaluation import predictions
from stages.runtime import paths
from stages.runtime.errors import UserError
from tests.conftest import write_params
from tests.evaluation.test_metrics import FOUR

HISTORY = "epoch,val_accuracy,val_loss\n1,0.7,0.5\n2,0.6,0.75\n"


def write_inputs(name: str, history: str = HISTORY) -> None:
    """What `train` leaves behind for a model."""
    predictions.write(paths.predictions(name), FOUR)
    paths.history(name).parent.mkdir(parents=True)
    paths.history(name).write_text(history, encoding="utf-8")


def read_metrics(name: str) -> dict[str, Any]:
    return json.loads(paths.metrics(name).read_text(encoding="utf-8"))


def test_missing_predictions_are_one_line(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"data/predictions/mnist_dense.parquet: missing; run `dvc repro train@mnist_dense`"
    ):
        evaluate.evaluate("mnist_dense")


def test_an_unknown_model_is_one_line(project: Path) -> None:
    with pytest.raises(UserError, match="there is no 'mnist_dens'; did you mean 'mnist_dense'"):
        evaluate.evaluate("mnist_dens")


@pytest.mark.parametrize("scale", [3, -1])
def test_outputs_that_are_no_probabilities_name_the_architecture(project: Path, scale: int) -> None:
    write_inputs("mnist_dense")
    predictions.write(paths.predictions("mnist_dense"), replace(FOUR, probabilities=scale * FOUR.probabilities[:]))
    message = f"stages/models/dense.py: its outputs are no probabilities: those of an image sum to {scale} to {scale}; "
    with pytest.raises(UserError, match=f"^{message}end it with a softmax in float32$"):
        evaluate.evaluate("mnist_dense")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_for_one_test_image_names_the_model_and_the_image(project: Path, value: float) -> None:
    write_inputs("mnist_dense")
    probabilities = FOUR.probabilities.copy()
    probabilities[2, 1] = value
    predictions.write(paths.predictions("mnist_dense"), replace(FOUR, probabilities=probabilities))
    message = "^params.yaml: models.mnist_dense: its probabilities for test image 'n0/n0_2.JPEG' are not finite: .*"
    with pytest.raises(UserError, match=message + "lower its learning_rate or .* float32, and train it again$"):
        evaluate.evaluate("mnist_dense")


def test_metrics_and_tables_are_written(project: Path) -> None:
    write_inputs("mnist_dense")
    evaluate.evaluate("mnist_dense")
    found = read_metrics("mnist_dense")
    assert (found["accuracy"], found["parameters"], found["epochs"]) == (0.75, 79510, 2)
    assert found["compute_dtype"] == "float32"
    assert found["validation_accuracy"] == 0.6  # of the last epoch, whose weights were saved
    assert "not_in_pretraining_images" not in found
    assert "accuracy_without_tta" not in found
    tables = {plot: paths.plot(plot, "mnist_dense") for plot in ("confusion", "classes", "reliability")}
    assert {plot: len(pd.read_csv(path)) for plot, path in tables.items()} == {
        "confusion": 16,
        "classes": 4,
        "reliability": 3,
    }


@pytest.mark.parametrize("classes", [4, 1001])
def test_accuracy_without_tta_is_a_metric_of_a_model_with_tta(project: Path, classes: int) -> None:
    """With any number of classes."""
    write_inputs("mnist_dense")
    names = [*FOUR.classes, *(f"class {label}" for label in range(4, classes))]
    probabilities = np.pad(FOUR.probabilities, ((0, 0), (0, classes - 4)))
    predicted = replace(FOUR, classes=names, probabilities=probabilities, predicted_without_tta=FOUR.true)
    predictions.write(paths.predictions("mnist_dense"), predicted)
    evaluate.evaluate("mnist_dense")
    found = read_metrics("mnist_dense")
    assert (found["accuracy"], found["accuracy_without_tta"]) == (0.75, 1.0)


@pytest.mark.parametrize(("min_improvement", "accuracy"), [(0, 0.8), (0.01, 0.7)])
def test_validation_accuracy_is_that_of_the_restored_epoch(
    project: Path, min_improvement: float, accuracy: float
) -> None:
    changes = {"restore_best": True, "min_improvement": min_improvement}
    write_params(project, lambda values: values["models"]["mnist_dense"].update(changes))
    write_inputs("mnist_dense", HISTORY + "3,0.8,0.495\n")
    evaluate.evaluate("mnist_dense")
    assert read_metrics("mnist_dense")["validation_accuracy"] == accuracy


def test_a_model_on_features_is_measured_on_images_not_in_the_pretraining_data(project: Path) -> None:
    write_inputs("imagenette_vgg16")
    evaluate.evaluate("imagenette_vgg16")
    found = read_metrics("imagenette_vgg16")
    assert (found["not_in_pretraining_images"], found["not_in_pretraining_accuracy"]) == (2, 1.0)
    paths.history("imagenette_cnn").write_text(HISTORY, encoding="utf-8")
    predictions.write(paths.predictions("imagenette_cnn"), FOUR)
    evaluate.evaluate("imagenette_cnn")  # the same images, but no backbone
    assert "not_in_pretraining_images" not in read_metrics("imagenette_cnn")


@pytest.mark.parametrize("history", ["", "epoch,loss\n1,2\n", "epoch,val_accuracy,val_loss\n", 'a,"\n'])
def test_a_corrupt_history_is_named(project: Path, history: str) -> None:
    write_inputs("mnist_dense", history)
    with pytest.raises(
        UserError, match=r"^reports/history/mnist_dense\.csv: corrupt: .*single-item train@mnist_dense`$"
    ):
        evaluate.evaluate("mnist_dense")
    assert not Path("reports/metrics").exists()
