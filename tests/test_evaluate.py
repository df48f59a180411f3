"""The metrics, against values worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import evaluate
from stages.console import UserError
from tests.conftest import write_params

CLASSES = ["cat", "dog", "eel", "fox"]


def predictions(true: list[int], probabilities: list[list[float]]) -> pd.DataFrame:
    array = np.array(probabilities, np.float32)
    return pd.DataFrame(
        {
            "key": [f"n0/{'ILSVRC2012_val_' if i % 2 else 'n0_'}{i}.JPEG" for i in range(len(true))],
            "true": pd.Categorical.from_codes(true, CLASSES),
            "predicted": pd.Categorical.from_codes(array.argmax(axis=1), CLASSES),
            "probabilities": list(array),
        }
    )


FOUR = predictions(
    [0, 1, 1, 2],
    [[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.5, 0.1, 0.2, 0.2], [0.1, 0.1, 0.6, 0.2]],
)


def test_metrics() -> None:
    found = evaluate.metrics(FOUR)
    assert found["images"] == 4
    assert found["accuracy"] == 0.75
    # Wilson: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.75, n = 4, z = 1.959964
    assert found["accuracy_low"] == pytest.approx(0.300642, abs=1e-6)
    assert found["accuracy_high"] == pytest.approx(0.954413, abs=1e-6)
    assert found["loss"] == pytest.approx(-(math.log(0.7) + 2 * math.log(0.6) + math.log(0.1)) / 4, abs=1e-6)
    # F1: cat 2/3 (one dog taken for it), dog 2/3, eel 1; no fox occurs or is predicted
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-6)
    assert found["top3_accuracy"] == 0.75  # the third image's dog is its least probable class
    # bins of 1/15: 0.7 right alone, 0.6 twice right, 0.5 wrong
    assert found["ece"] == pytest.approx((0.3 + 2 * 0.4 + 0.5) / 4, abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_metrics_of_one_image_and_of_one_class() -> None:
    for count in (1, 3):
        found = evaluate.metrics(predictions([1] * count, [[0.1, 0.7, 0.1, 0.1]] * count))
        assert (found["accuracy"], found["macro_f1"], found["top3_accuracy"]) == (1.0, 1.0, 1.0)
        assert found["loss"] == pytest.approx(-math.log(0.7), abs=1e-6)


def test_confusion_counts_and_shares() -> None:
    table = evaluate.confusion(FOUR).set_index(["actual", "predicted"])
    assert len(table) == 16
    assert table["count"].sum() == 4
    assert table.loc[("dog", "cat"), "count"] == 1
    assert table.loc[("dog", "cat"), "share"] == 0.5
    assert table.loc["fox"]["share"].sum() == 0  # a class without images


def test_classes_give_precision_recall_and_f1() -> None:
    table = evaluate.classes(FOUR).set_index("class")
    assert list(table.index) == CLASSES
    assert table.loc["cat"].tolist() == [0.5, 1, 0.6667, 1]  # one of the two taken for cats is one
    assert table.loc["dog"].tolist() == [1, 0.5, 0.6667, 2]
    assert table.loc["fox"].tolist() == [0, 0, 0, 0]


def test_reliability_has_the_bins_of_the_calibration_error() -> None:
    table = evaluate.reliability(FOUR)
    assert table["images"].tolist() == [1, 2, 1]  # at 0.5, 0.6 and 0.7; empty bins are left out
    assert table["confidence"].tolist() == [0.5, 0.6, 0.7]
    assert table["accuracy"].tolist() == [0, 1, 1]
    assert table["high"].tolist() == pytest.approx([8 / 15, 10 / 15, 11 / 15], abs=1e-4)
    assert evaluate.calibration_error(table) == pytest.approx(evaluate.metrics(FOUR)["ece"], abs=1e-4)
    certain = evaluate.calibration(np.array([1.0, 0.0]), np.array([True, False]))
    assert certain["high"].tolist() == pytest.approx([1 / 15, 1])  # the last bin holds its upper border


def test_unseen_images_are_those_of_the_prefix() -> None:
    assert evaluate.unseen(FOUR, "ILSVRC2012_val_") == {"unseen_images": 2, "unseen_accuracy": 1.0}
    assert evaluate.unseen(FOUR, "n0_") == {"unseen_images": 2, "unseen_accuracy": 0.5}
    assert evaluate.unseen(FOUR, "nothing") == {"unseen_images": 0}
    assert evaluate.unseen(FOUR, None) == {}


def test_the_stage_reads_what_train_writes(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"data/predictions/mnist_dense.parquet: missing; run `dvc repro train@mnist_dense`"
    ):
        evaluate.evaluate("mnist_dense")
    Path("data/predictions").mkdir(parents=True)
    Path("reports/history").mkdir(parents=True)
    table = FOUR.copy()
    table.attrs = {"parameters": 12, "precision": "float32", "model": "0" * 32}
    table.to_parquet("data/predictions/mnist_dense.parquet")
    Path("reports/history/mnist_dense.csv").write_text("epoch,val_accuracy,val_loss\n1,0.7,0.5\n2,0.6,0.75\n")
    evaluate.evaluate("mnist_dense")
    found = json.loads(Path("reports/metrics/mnist_dense.json").read_text())
    assert (found["accuracy"], found["parameters"], found["epochs"], found["precision"]) == (0.75, 12, 2, "float32")
    assert found["validation_accuracy"] == 0.6  # of the last epoch: that is the model which was saved
    write_params(project, lambda values: values["models"]["mnist_dense"].update(restore_best=True))
    evaluate.evaluate("mnist_dense")
    found = json.loads(Path("reports/metrics/mnist_dense.json").read_text())
    assert found["validation_accuracy"] == 0.7  # of the epoch with the lowest loss
    rows = {plot: len(pd.read_csv(f"reports/plots/{plot}/mnist_dense.csv")) for plot in ("confusion", "classes")}
    assert rows == {"confusion": 16, "classes": 4}
    assert pd.read_csv("reports/plots/reliability/mnist_dense.csv")["images"].sum() == 4


@pytest.mark.parametrize("history", [b"", b"epoch,loss\n1,2\n", b"epoch,val_accuracy,val_loss\n", b'a,"\n', b"\xff"])
def test_a_damaged_history_is_named(project: Path, history: bytes) -> None:
    for folder in ("data/predictions", "reports/history"):
        Path(folder).mkdir(parents=True)
    table = FOUR.copy()
    table.attrs = {"parameters": 12, "precision": "float32", "model": "0" * 32}
    table.to_parquet("data/predictions/mnist_dense.parquet")
    Path("reports/history/mnist_dense.csv").write_bytes(history)
    with pytest.raises(
        UserError, match=r"^reports/history/mnist_dense\.csv: damaged: .*single-item train@mnist_dense`$"
    ):
        evaluate.evaluate("mnist_dense")
    assert not Path("reports/metrics").exists()
