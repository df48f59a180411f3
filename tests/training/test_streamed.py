"""A training with less memory than its data need ends with the same bytes, also after a kill."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.config.models import PartConfig
from stages.data import arrays, reader, writer
from stages.prediction import predict
from stages.prediction.predict import Facts
from stages.prediction.saved_model import save
from stages.training import checkpoint
from stages.training.loop import train_epochs
from stages.training.network import build_model
from tests.training.small import CLASSES, config
from tests.training.small import arrays as small_arrays
from tests.training.small import predict as predict_split
from tests.training.test_checkpoint import KilledError

SIDE, IMAGES = 32, 300
BYTES = SIDE * SIDE * 3 * IMAGES
RANDOM = {
    "architecture": "cnn",
    "filters": [4],
    "padding": "same",
    "units": [],
    "augment": [
        {"name": "alternating_flip"},
        {"name": "random_crop", "padding": 2, "mode": "reflect"},
        {"name": "cutmix", "alpha": 1.0},
        {"name": "rotation", "factor": 0.1},
    ],
    "class_weight": "balanced",
    "epochs": 3,
}


class Held:
    """The peak of the bytes that the rows of a split on disk take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.peak = 0
        allocate = arrays.aligned_empty

        def counted(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            array = allocate(shape, dtype)
            self.change(array.nbytes)
            weakref.finalize(array, self.change, -array.nbytes)
            return array

        monkeypatch.setattr(arrays, "aligned_empty", counted)

    def change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def train(memory: float, folder: Path, kill_after: int = 99) -> tuple[bytes, dict[int, Any]]:
    """The bytes of a model and the history of its training on the records `some`."""
    import keras

    keras.utils.clear_session()  # Keras numbers the layers of a process
    keras.utils.set_random_seed(3)
    entry = config(**RANDOM)
    splits = [reader.load("some", split, None, memory) for split in ("train[:-50]", "train[-50:]")]
    model = build_model(entry, (SIDE, SIDE, 3), np.dtype("uint8"), 2)
    rows = {}
    for epoch, row in train_epochs(model, entry, splits[0], splits[1], 3, folder / f"{memory}.npz"):
        rows[epoch] = row
        if epoch == kill_after:
            raise KilledError
    save(model, folder / "model.keras", {})
    return (folder / "model.keras").read_bytes(), rows


def write_records(split: str, images: int) -> None:
    data = small_arrays(images, side=SIDE, channels=3)
    found = zip(data.keys, data.inputs, data.labels, strict=True)
    writer.write("some", CLASSES, [split], ((split, key, pixels, int(label)) for key, pixels, label in found))


def test_training_in_a_quarter_of_the_memory_of_its_data_ends_with_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(arrays, "BYTES_AT_ONCE", BYTES // 12)
    write_records("train", IMAGES)
    held = Held(monkeypatch)
    unlimited = train(1, project)
    assert held.peak == 0
    with pytest.raises(KilledError):
        train(0, project, kill_after=1)
    assert train(0, project) == unlimited
    assert 0 < held.peak <= BYTES / 4


def test_predictions_of_records_are_those_of_the_split_in_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records("test", 70)
    path, test_time = project / "model.keras", PartConfig(name="mirror")
    entry = config(architecture="cnn", filters=[4], padding="same", units=[])
    save(build_model(entry, (SIDE, SIDE, 3), np.dtype("uint8"), 2), path, {})
    whole = predict_split(path, reader.load("some", "test"), test_time)
    monkeypatch.setattr(predict, "eval_batch_size", lambda model: 8)
    monkeypatch.setattr(predict, "PART_BYTES", SIDE * SIDE * 3 * 20)  # two batches
    facts = Facts(CLASSES, "float32", 9)
    found = predict.predict_records(path, "some", None, facts, "test", test_time)
    for field in ("keys", "true", "predicted", "predicted_without_tta"):
        assert np.array_equal(getattr(found, field), getattr(whole, field)), field
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-6)
