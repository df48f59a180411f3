"""Trainings with augmentations whose random numbers are stateless: after a kill, and on two devices."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.training import checkpoint
from tests.training.test_checkpoint import KilledError, train_random
from tests.training.test_distribution import train, train_all, training

PLACES: dict[str, dict[str, Any]] = {
    "random_crop": {"padding": 2, "mode": "reflect"},
    "alternating_flip": {},
    "cutout": {"size": 3},
    "random_erasing": {"size": 2, "max_squares": 2},
}
MIXING: dict[str, dict[str, Any]] = {"affine": {"rotation": 0.1}, "cutmix": {"alpha": 1.0}, "mixup": {"alpha": 0.4}}
CNN = {
    "architecture": "cnn",
    "filters": [4],
    "padding": "same",
    "units": [],
    "augment": PLACES | MIXING,
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "epochs": 2,
}


def test_killed_augmented_training_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        whole, history = train_random(CNN, tmp_path / "whole.npz", tmp_path)
        with pytest.raises(KilledError):
            train_random(CNN, tmp_path / "parts.npz", tmp_path, kill_after=1)
        resumed, resumed_history = train_random(CNN, tmp_path / "parts.npz", tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert resumed == whole
    assert resumed_history.equals(history)
    assert np.isfinite(history).all(axis=None)


def test_two_devices_augment_images_as_one_device_does(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"augment": PLACES, "epochs": 2}
    assert train_all(tmp_path, training(None, 70, **changes), training("mirrored", 70, **changes)) == ""
    one, both = (pd.read_csv(tmp_path / f"{name}.csv", index_col="epoch") for name in ("one", "mirrored"))
    np.testing.assert_allclose(both, one, rtol=1e-4)


def test_two_devices_train_on_mixed_images(tmp_path: Path) -> None:
    """Each device mixes its own share of a batch."""
    assert train(tmp_path, "mirrored", 70, augment=MIXING, epochs=2) == ""
    assert np.isfinite(pd.read_csv(tmp_path / "mirrored.csv")["loss"]).all()
