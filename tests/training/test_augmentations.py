"""Augmentations."""

from typing import Any

import numpy as np
import pytest

from stages.training.augment import augment_images, build_augmentations

EACH: dict[str, dict[str, Any]] = {
    "horizontal_flip": {},
    "contrast": {"factor": 0.5},
    "rotation": {"factor": 0.1},
    "translation": {"factor": 0.2},
    "zoom": {"factor": 0.3},
}


def test_augmentations_are_independent_of_each_other() -> None:
    """With one seed for all, an image would be flipped whenever it is rotated in one direction."""
    augmentations: list[Any] = build_augmentations(EACH, seed=1)
    states = [tuple(np.asarray(augmentation.variables[0]).tolist()) for augmentation in augmentations]
    assert len(set(states)) == len(EACH)


@pytest.mark.parametrize("name", EACH)
def test_augmentation_changes_images_in_the_same_way_for_the_same_seed(name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    options = {name: EACH[name]}
    changed = augment_images(build_augmentations(options, seed=1), images)
    assert changed.shape == images.shape
    assert not np.array_equal(changed, images)
    assert np.array_equal(augment_images(build_augmentations(options, seed=1), images), changed)
    assert not np.array_equal(augment_images(build_augmentations(options, seed=2), images), changed)


def test_order_of_params_is_the_order_of_the_augmentations() -> None:
    names = ["zoom", "horizontal_flip"]
    augmentations: list[Any] = build_augmentations({name: EACH[name] for name in names}, seed=1)
    assert [type(augmentation._layer).__name__ for augmentation in augmentations] == ["RandomZoom", "RandomFlip"]
