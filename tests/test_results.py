"""What is read is what was written, whatever the names of the classes."""

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
        with pytest.raises(UserError, match=r"data/predictions/mnist_dense.parquet: missing; run `dvc repro`"):
            results.models(params.load())
    finally:
        Path("aside").rename(path)
