"""The training loop."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.data.reader import SplitArrays
from stages.runtime import progress
from stages.runtime.errors import UserError
from stages.training.augment import Batch
from stages.training.loop import train_epochs
from stages.training.network import build_model
from tests.training.small import arrays, config, history_of, model_of, trained


def test_training_changes_all_weights_and_learns() -> None:
    model = model_of(config())
    before = model.get_weights()
    history = history_of(train_epochs(model, config(epochs=15), arrays(), arrays(seed=5), 1))
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert list(history.columns) == ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
    assert list(history.index) == list(range(1, 16))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["val_accuracy"].iloc[-1] > 0.9


def test_same_seed_gives_same_weights_and_another_seed_gives_others() -> None:
    (first, _), (second, _), (other, _) = (trained(config(), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_patience_stops_training_and_restore_best_keeps_the_best_epoch() -> None:
    model, history = trained(config(epochs=40, patience=2, restore_best=True, learning_rate=0.9))
    best = history["val_loss"].idxmin()
    assert len(history) == best + 2 < 40
    validation = arrays(seed=5)
    probabilities = model.predict(validation.inputs, verbose=0)[np.arange(70), validation.labels]
    assert -np.log(probabilities).mean() == pytest.approx(history["val_loss"].min(), rel=1e-3)


def test_patience_does_not_count_a_loss_that_falls_by_less_than_min_improvement() -> None:
    _, history = trained(config(epochs=12, patience=2))
    assert len(history) == 12 and (history["val_loss"].diff()[1:] < 0).all()  # it falls in every epoch
    _, stopped = trained(config(epochs=12, patience=2, min_improvement=100.0))
    assert len(stopped) == 1 + 2  # none falls by so much after the first


def test_history_has_the_learning_rate_of_the_last_step_of_each_epoch() -> None:
    _, constant = trained(config())
    assert list(constant["learning_rate"]) == [0.01] * 3
    _, cosine = trained(config(epochs=4, schedule={"name": "cosine"}))
    last_steps = np.array([4, 9, 14, 19])  # five steps in an epoch
    np.testing.assert_allclose(cosine["learning_rate"], 0.01 * (1 + np.cos(np.pi * last_steps / 20)) / 2, rtol=1e-6)


def test_schedule_sets_the_learning_rate_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate of zero in all steps but the second of the first epoch, one step is all that changes weights."""
    part = SimpleNamespace(build=lambda peak, steps, epochs: (np.arange(steps) == 1) * peak)  # float64, as of NumPy
    monkeypatch.setitem(sys.modules, "stages.training.schedules.second", part)
    once = {"schedule": {"name": "second"}, "optimizer": {"name": "sgd"}, "epochs": 1}
    model, _ = trained(config(**once))
    longer, _ = trained(config(**{**once, "epochs": 3}))
    start = model_of(config())
    assert not np.array_equal(model.get_weights()[0], start.get_weights()[0])
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), longer.get_weights(), strict=True))


def test_schedule_without_a_rate_for_every_step_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    part = SimpleNamespace(build=lambda peak, steps, epochs: np.full(epochs, peak))
    monkeypatch.setitem(sys.modules, "stages.training.schedules.epochwise", part)
    with pytest.raises(UserError, match=r"^stages/training/schedules/epochwise.py: build returned float64 \(3,\): ret"):
        trained(config(schedule={"name": "epochwise"}))


def test_loss_that_is_not_finite_is_one_line() -> None:
    entry = config(optimizer={"name": "sgd"}, learning_rate=1.0)
    model = build_model(entry, (8, 8, 1), np.dtype("float32"), 2)
    broken = arrays()
    broken = SplitArrays(broken.keys, broken.inputs.astype(np.float32) * 1e36, broken.labels)
    with pytest.raises(UserError, match=r"the loss is nan, .* in epoch 1; lower the learning rate"):
        list(train_epochs(model, entry, broken, broken, 1))


def test_batch_larger_than_the_split_is_the_whole_split() -> None:
    (larger, history), (whole, _) = trained(config(batch_size=100_000)), trained(config(batch_size=70))
    assert all(np.array_equal(a, b) for a, b in zip(larger.get_weights(), whole.get_weights(), strict=True))
    assert len(history) == 3


def test_split_of_a_single_class_is_learned() -> None:
    """A class without training images is an error of preprocess; a split of few images may still hold one class."""
    data = arrays()
    single = SplitArrays(data.keys, data.inputs, np.zeros_like(data.labels))
    history = history_of(train_epochs(model_of(config()), config(epochs=15), single, single, 1))
    assert history["accuracy"].iloc[-1] == 1.0


@pytest.mark.parametrize("augment", [[], [{"name": "mixup", "alpha": 1.0}], [{"name": "cutmix", "alpha": 1.0}]])
def test_balanced_class_weights_give_classes_of_900_and_100_images_the_same_share_in_training_only(
    augment: list[dict[str, Any]],
) -> None:
    labels = np.repeat(np.array([0, 1], np.int32), [900, 100])
    rare = SplitArrays(np.arange(1000), np.full((1000, 8, 8, 1), 100, np.uint8), labels)
    probabilities, histories = [], []
    for class_weight in (None, "balanced"):  # the images are all the same: only the classes' shares can be learned
        options = {"batch_size": 500, "epochs": 40, "learning_rate": 0.03}
        entry = config(class_weight=class_weight, augment=augment, **options)
        model = model_of(entry)
        histories.append(history_of(train_epochs(model, entry, rare, rare, 1)))
        probabilities.append(model.predict(rare.inputs[:1], verbose=0)[0, 1])
    assert probabilities == pytest.approx([0.1, 0.5], abs=0.03)
    assert histories[1]["val_loss"].iloc[-1] > 2 * histories[0]["val_loss"].iloc[-1]  # validation has no weights


def test_long_epoch_reports_progress_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    list(train_epochs(model_of(config()), config(epochs=1), arrays(), arrays(seed=5), 1, title="mnist_dense"))
    errors = capsys.readouterr().err
    assert "mnist_dense: epoch 1/1:  23% 16/70 [" in errors
    assert "mnist_dense: epoch 1/1, validation: 100% 70/70 [" in errors


def test_augmentation_may_mix_targets_and_use_index_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What mixup and an alternating flip need; every example arrives once in each epoch."""
    import tensorflow as tf

    seen: list[tuple[int, list[int]]] = []

    def mix(batch: Batch) -> Batch:
        tf.py_function(
            lambda epoch, indices: seen.append((int(epoch), indices.numpy().tolist())), [batch.epoch, batch.indices], []
        )
        soft = tf.one_hot(batch.targets, batch.num_classes)
        return batch._replace(inputs=(batch.inputs + batch.inputs[::-1]) / 2, targets=(soft + soft[::-1]) / 2)

    monkeypatch.setitem(sys.modules, "stages.training.augmentations.mix", SimpleNamespace(build=lambda seed: mix))
    _, history = trained(config(augment=[{"name": "mix"}], epochs=2))
    assert np.isfinite(history["loss"]).all()
    for epoch in (0, 1):
        indices: list[Any] = [index for number, batch in seen if number == epoch for index in batch]
        assert sorted(indices) == list(range(70))


def test_losses_of_the_model_are_trained_and_reported() -> None:
    """Keras adds weight regularization to the loss of training and validation; so does the loop."""
    import keras

    def regularized(factor: float) -> tuple[Any, Any]:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8, 8, 1), dtype="uint8")
        hidden = keras.layers.Rescaling(1 / 255)(keras.ops.cast(inputs, "float32"))
        hidden = keras.layers.Flatten()(hidden)
        outputs = keras.layers.Dense(2, "softmax", kernel_regularizer=keras.regularizers.L2(factor))(hidden)
        model = keras.Model(inputs, outputs)
        return model, history_of(train_epochs(model, config(), arrays(), arrays(seed=5), 1))

    (free, _), (held, history) = regularized(0.0), regularized(10.0)
    assert np.square(held.get_weights()[0]).sum() < np.square(free.get_weights()[0]).sum() / 2
    held.compile(loss="sparse_categorical_crossentropy")
    validation = arrays(seed=5)
    expected = held.evaluate(validation.inputs, validation.labels, verbose=0)
    assert history["val_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)
