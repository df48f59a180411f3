"""A training with augmentations after a kill: their random numbers are stateless."""

from pathlib import Path

import numpy as np
import pytest

from stages.training import checkpoint
from tests.training.small import MIXING, PLACES
from tests.training.test_checkpoint import KilledError, train_random

CNN = {
    "architecture": "cnn",
    "filters": [4],
    "padding": "same",
    "units": [],
    "augment": PLACES + MIXING,
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
