"""Augmentation is for training only."""

from typing import Any

import keras
import numpy as np
import pytest

from stages import augment, params


def test_changes_are_independent_of_each_other() -> None:
    """With one seed for all layers, an image would be mirrored whenever it is turned one way."""
    layers = augment.layers(params.Augment(horizontal_flip=True, contrast=0.2, rotation=0.1, zoom=0.1), seed=1)
    draws = [np.asarray(keras.random.uniform((8,), seed=layer.generator)) for layer in layers]
    assert len({draw.tobytes() for draw in draws}) == len(layers) == 4


@pytest.mark.parametrize(
    "change", [{"horizontal_flip": True}, {"contrast": 0.5}, {"rotation": 0.1}, {"shift": 0.2}, {"zoom": 0.3}]
)
def test_augmentation_changes_images_in_training_alone(change: dict[str, Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    (layer,) = augment.layers(params.Augment(**change), seed=1)
    assert np.array_equal(layer(images, training=False), images)
    changed = np.asarray(layer(images, training=True))
    assert changed.shape == images.shape
    assert not np.array_equal(changed, images)
    (again,) = augment.layers(params.Augment(**change), seed=1)
    assert np.array_equal(again(images, training=True), changed)
