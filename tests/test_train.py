"""The trainer, on data small enough to know what it has to do."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from stages import params, records, train
from stages.console import UserError
from tests.conftest import ROOT

CLASSES = ["dark", "bright"]


def recipe(**changes: Any) -> params.Model:
    entry = {
        "dataset": "mnist",
        "architecture": "dense",
        "units": [8],
        "optimizer": "adam",
        "learning_rate": 0.01,
        "batch_size": 16,
        "epochs": 3,
    }
    return params.Model(**{**entry, **changes})


def arrays(count: int = 70, seed: int = 0) -> records.Arrays:
    """Dark and bright images: what any model learns in a few steps. The last batch of 16 is not full."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.int32)
    inputs = (rng.integers(0, 100, (count, 8, 8, 1)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    return records.Arrays(np.array([f"{i:05d}" for i in range(count)], object), inputs, labels)


def history_of(epochs: Iterable[tuple[int, Any]]) -> pd.DataFrame:
    """Train to the end: a row an epoch."""
    return pd.DataFrame.from_dict(dict(epochs), orient="index")


def fitted(changes: dict[str, Any], seed: int = 1, **options: Any) -> tuple[Any, pd.DataFrame]:
    import keras

    keras.utils.set_random_seed(seed)
    entry = recipe(**changes)
    model = train.build(entry, (8, 8, 1), np.dtype("uint8"), 2, seed)
    return model, history_of(train.epochs(model, entry, arrays(), arrays(seed=5), seed, **options))


def test_training_changes_the_weights_and_learns() -> None:
    import keras

    keras.utils.set_random_seed(1)
    model = train.build(recipe(), (8, 8, 1), np.dtype("uint8"), 2, 1)
    before = model.get_weights()
    history = history_of(train.epochs(model, recipe(epochs=15), arrays(), arrays(seed=5), 1))
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert list(history.columns) == ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
    assert list(history.index) == list(range(1, 16))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["val_accuracy"].iloc[-1] > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    (first, _), (second, _), (other, _) = fitted({}, seed=1), fitted({}, seed=1), fitted({}, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_a_saved_model_predicts_as_the_one_in_memory(tmp_path: Path) -> None:
    model, _ = fitted({})
    train.save(model, tmp_path / "model.keras")
    test = arrays(seed=9)
    predictions = train.predict(tmp_path / "model.keras", test, CLASSES)
    expected = model.predict(test.inputs, verbose=0)
    np.testing.assert_allclose(np.stack(predictions["probabilities"]), expected, rtol=1e-5)
    assert list(predictions["true"]) == [CLASSES[label] for label in test.labels]
    assert list(predictions["predicted"]) == [CLASSES[label] for label in expected.argmax(axis=1)]
    assert list(predictions["key"]) == list(test.keys)
    assert predictions.attrs["parameters"] == model.count_params()


def test_saving_twice_gives_the_same_bytes_and_no_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fitted({"epochs": 1})
    train.save(model, tmp_path / "a.keras")
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        assert "layers" in file
        assert "optimizer" not in file
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    train.save(model, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.keras", "b.keras"}


def test_early_stopping_and_the_best_epoch() -> None:
    model, history = fitted({"epochs": 40, "early_stopping": 2, "restore_best": True, "learning_rate": 0.9})
    best = history["val_loss"].idxmin()
    assert len(history) == best + 2 < 40
    held_out = arrays(seed=5)
    probabilities = model.predict(held_out.inputs, verbose=0)[np.arange(70), held_out.labels]
    assert -np.log(probabilities).mean() == pytest.approx(history["val_loss"].min(), rel=1e-3)


def test_the_cosine_schedule_falls_from_the_learning_rate() -> None:
    _, history = fitted({"epochs": 4, "schedule": "cosine"})
    assert history["learning_rate"].iloc[0] == pytest.approx(0.01)
    assert history["learning_rate"].is_monotonic_decreasing
    assert history["learning_rate"].iloc[2] == pytest.approx(0.005)


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    entry = recipe(optimizer="sgd", learning_rate=1.0)
    model = train.build(entry, (8, 8, 1), np.dtype("float32"), 2, 1)
    broken = arrays()
    broken = records.Arrays(broken.keys, broken.inputs.astype(np.float32) * 1e36, broken.labels)
    with pytest.raises(UserError, match=r"the loss is nan, .* in epoch 1; lower the learning rate"):
        list(train.epochs(model, entry, broken, broken, 1))


def test_a_batch_larger_than_the_split_is_the_whole_split() -> None:
    (larger, history), (whole, _) = fitted({"batch_size": 100_000}), fitted({"batch_size": 70})
    assert all(np.array_equal(a, b) for a, b in zip(larger.get_weights(), whole.get_weights(), strict=True))
    assert len(history) == 3


def test_one_class_alone_is_learnt() -> None:
    """A class without training images is an error of preprocess; a split of few images may still hold one class."""
    one = arrays()
    one = records.Arrays(one.keys, one.inputs, np.zeros_like(one.labels))
    model = train.build(recipe(), (8, 8, 1), np.dtype("uint8"), 2, 1)
    history = history_of(train.epochs(model, recipe(epochs=15), one, one, 1))
    assert history["accuracy"].iloc[-1] == 1.0


@pytest.mark.parametrize(("images", "fraction"), [(1, 0.5), (4, 0.1), (40, 1e-12), (40, 0.999)])
def test_a_split_without_images_is_one_line(images: int, fraction: float) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: train.validation_fraction: .* images of mnist leaves an empty"):
        train._split("mnist", images, fraction)


def test_an_architecture_that_does_not_fit_its_images_is_one_line() -> None:
    entry = params.load(ROOT / "params.yaml").models["cifar10_cnn"]
    with pytest.raises(UserError, match="cnn does not fit inputs of shape") as caught:
        train.build(entry, (8, 8, 1), np.dtype("uint8"), 2, 1)
    assert "\n" not in str(caught.value)
