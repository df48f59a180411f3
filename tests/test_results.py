"""What is read is what was written, whatever the names of the classes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import params, results
from stages.console import UserError
from tests.conftest import AWKWARD, MODELS


def test_class_names_stay_what_they_are(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    model = results.models(params.load())[0]
    assert list(model.classes["class"])[: len(AWKWARD)] == AWKWARD
    assert list(model.confusion["predicted"])[: len(AWKWARD)] == AWKWARD


def test_a_model_of_features_shows_the_images_they_are_made_of(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    models = results.models(params.load())
    assert [model.name for model in models] == MODELS
    assert [model.images_of for model in models] == ["mnist", "cifar10", "imagenette"]
    assert models[1].md5 == f"{1:032x}"


def test_the_most_confident_mistakes_come_first() -> None:
    confidence = [0.9, 0.6, 0.8, 0.8, 0.7]
    predictions = pd.DataFrame(
        {
            "key": ["right", "e", "d", "c", "b"],
            "true": pd.Categorical(["x", "x", "x", "x", "y"]),
            "predicted": pd.Categorical(["x", "y", "y", "y", "x"]),
            "probabilities": [np.array([1 - value, value], np.float32) for value in confidence],
        }
    )
    found = results.mistakes(predictions)
    assert list(found["key"]) == ["c", "d", "b", "e"]
    assert found["confidence"].tolist() == pytest.approx([0.8, 0.8, 0.7, 0.6])
    assert results.mistakes(predictions.head(1)).empty


def test_missing_predictions_are_one_line(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    path = Path("data/predictions/mnist_dense.parquet")
    path.rename("aside")
    try:
        with pytest.raises(
            UserError, match=r"data/predictions/mnist_dense.parquet: missing; run `dvc repro train@mnist_dense`"
        ):
            results.models(params.load())
    finally:
        Path("aside").rename(path)


DAMAGE = {
    "data/counts/mnist.json": [b"", b"{", b"{}", b'{"train": {"0": 1}, "test": {"0": 1}}', b'{"train": 1}', b"\xff"],
    "data/skipped/mnist.json": [b"", b"[]"],
    "data/predictions/mnist_dense.parquet": [b"", b"PAR1 and so on PAR1"],
    "reports/metrics/mnist_dense.json": [b"", b'{"accuracy": 0.', b"{}", b"[]", b"1", b"null"],
    "reports/history/mnist_dense.csv": [b"", b"epoch,loss\n1,2\n", b"\x00\xff", b'"'],
    "reports/plots/confusion/mnist_dense.csv": [b"", b"actual,predicted,count,share\n0,0,1,1.0\n0,1,1,1.0\n"],
    "reports/plots/classes/mnist_dense.csv": [b"class,precision,recall,f1,images\n", b"class,images\na,b\n"],
    "reports/plots/reliability/mnist_dense.csv": [b"low,high,confidence,accuracy,images\n0,1,?,1,1\n"],
    "reports/published.yaml": [b"mnist_dense: [", b"[]", b"mnist_dense: {figure: 97}", b"\xff"],
}


@pytest.mark.parametrize("file", DAMAGE)
def test_a_damaged_file_is_named(measured: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(measured)
    path = Path(file)
    good = path.read_bytes()
    try:
        for content in DAMAGE[file]:
            path.write_bytes(content)
            with pytest.raises(UserError, match=f"^{re.escape(file)}: \\S") as caught:
                results.models(params.load()), results.datasets(params.load())
            assert str(caught.value).isprintable(), content
            assert "`dvc repro --force --single-item " in str(caught.value) or path.suffix == ".yaml"
    finally:
        path.write_bytes(good)
