"""Saved models: their bytes, and what they predict."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from stages.prediction.saved_model import read_signature, save
from tests.training.small import arrays, config, predict, trained


def test_saved_model_predicts_as_the_one_in_memory(tmp_path: Path) -> None:
    model, _ = trained(config())
    save(model, tmp_path / "model.keras", {})
    test = arrays(seed=9)
    predictions = predict(tmp_path / "model.keras", test)
    expected = model.predict(test.inputs, verbose=0)
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(predictions.true, test.labels)
    np.testing.assert_array_equal(predictions.predicted, expected.argmax(axis=1))
    assert list(predictions.keys) == list(test.keys)
    assert predictions.parameters == model.count_params()


def test_saving_twice_gives_same_bytes_without_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = trained(config(epochs=1))
    save(model, tmp_path / "a.keras", {})
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        assert "layers" in file
        assert "optimizer" not in file
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    save(model, tmp_path / "b.keras", {})
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.keras", "b.keras"}


def test_augmented_model_is_saved_without_its_augmentations(tmp_path: Path) -> None:
    plain, augmented = (
        trained(config(epochs=1, augment=augment))[0] for augment in ([], [{"name": "horizontal_flip"}])
    )
    configs = []
    for model in (plain, augmented):
        save(model, tmp_path / "model.keras", {})
        with zipfile.ZipFile(tmp_path / "model.keras") as archive:
            configs.append(archive.read("config.json"))
    assert configs[0] == configs[1]


def test_signature_is_read_from_the_saved_model(tmp_path: Path) -> None:
    signature = {"classes": ["猫", "dog"], "image_size": 8, "backbone": None}
    save(trained(config(epochs=1))[0], tmp_path / "model.keras", signature)
    assert read_signature(tmp_path / "model.keras") == signature
