"""Progressive resizing."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.runtime.errors import UserError
from stages.training.augment import Batch
from stages.training.loop import train_epochs
from stages.training.network import build_train_model, without_cast
from stages.training.progressive import image_sizes, resize
from tests.training.small import arrays, config, history_of, trained

STAGES = [{"epochs": 2, "image_size": 64}, {"epochs": 1, "image_size": 96}]


@pytest.mark.parametrize(
    ("epochs", "expected"), [(5, [64, 64, 96, 128, 128]), (3, [64, 64, 128]), (2, [64, 128]), (1, [128])]
)
def test_last_epoch_has_full_size_however_few_there_are(epochs: int, expected: list[int]) -> None:
    assert image_sizes(config(epochs=epochs, progressive=STAGES), 128) == expected


def nested(side: int, pooled: bool = True) -> Any:
    """A model within a model, as `build_model` makes them, with a branch and global pooling or a dense layer."""
    import keras
    from keras import layers

    inner = keras.Input((side, side, 1))
    branch = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.ReLU()])(inner)
    outputs = layers.add([branch, layers.Conv2D(4, 1)(inner)])
    outputs = layers.Dense(2, "softmax")(
        layers.GlobalAveragePooling2D()(outputs) if pooled else layers.Flatten()(outputs)
    )
    inputs = keras.Input((side, side, 1), dtype="uint8")
    pixels = layers.Rescaling(1 / 255)(keras.ops.cast(inputs, "float32"))
    return keras.Model(inputs, keras.Model(inner, outputs)(pixels))


def test_model_for_another_size_has_the_same_layers() -> None:
    model = nested(8)
    smaller = build_train_model(model, 6)
    assert smaller.input_shape == (None, 6, 6, 1)
    assert [id(one) for one in smaller.trainable_variables] == [id(one) for one in model.trainable_variables]
    # A constant image has the same mean of all positions at every size, except for the borders
    model.layers[-1].layers[1].layers[0].kernel.assign(np.eye(9)[4].reshape(3, 3, 1, 1) * np.ones(4))
    full, small = (one(np.full((1, *one.input_shape[1:]), 9.0)) for one in (without_cast(model), smaller))
    np.testing.assert_allclose(np.asarray(small), np.asarray(full), rtol=1e-6)


def test_architecture_of_a_fixed_size_is_one_line() -> None:
    with pytest.raises(UserError, match="progressive: the architecture does not fit images of 6 pixels") as caught:
        build_train_model(nested(8, pooled=False), 6)
    assert "\n" not in str(caught.value)


def test_resize_averages_pixels() -> None:
    import tensorflow as tf

    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    indices, epoch = tf.range(2, dtype=tf.int64), tf.constant(0, tf.int64)
    batch = Batch(tf.constant(images), tf.zeros(2, tf.int32), indices, epoch, 1, 2)
    resized = resize(batch, 4).inputs
    assert resized.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(resized.numpy().mean(), images.mean(), atol=0.01)


def test_training_uses_every_size_and_validates_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    sizes: list[int] = []

    def spy(batch: Batch) -> Batch:
        tf.py_function(lambda: sizes.append(int(batch.inputs.shape[1])), [], [])
        return batch

    monkeypatch.setitem(sys.modules, "stages.training.augmentations.spy", SimpleNamespace(build=lambda seed: spy))
    entry = config(augment=[{"name": "spy"}], progressive=[{"epochs": 2, "image_size": 8}], epochs=3, batch_size=70)
    model = nested(16)
    data = arrays(side=16)
    history = history_of(train_epochs(model, entry, data, arrays(side=16, seed=5), 1))
    assert sizes == [8, 8, 16]
    model.compile(loss="sparse_categorical_crossentropy")
    assert history["val_loss"].iloc[-1] == pytest.approx(
        model.evaluate(arrays(side=16, seed=5).inputs, arrays(side=16, seed=5).labels, verbose=0), rel=1e-5
    )


def test_drop_last_leaves_out_the_smaller_batch_unless_it_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    counts: list[int] = []

    def spy(batch: Batch) -> Batch:
        tf.py_function(lambda: counts.append(int(batch.inputs.shape[0])), [], [])
        return batch

    monkeypatch.setitem(sys.modules, "stages.training.augmentations.spy", SimpleNamespace(build=lambda seed: spy))
    for batch_size in (32, 100):
        trained(config(augment=[{"name": "spy"}], epochs=1, batch_size=batch_size, drop_last=True))
    assert counts == [32, 32, 70]
