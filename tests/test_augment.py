"""Augmentation is for training only."""

from typing import Any

import numpy as np
import pytest

from stages import augment, params


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
