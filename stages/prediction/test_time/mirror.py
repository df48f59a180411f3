"""Test-time augmentation: each image and its mirror image."""

from collections.abc import Callable, Iterator

import numpy as np


def build() -> Callable[[np.ndarray], Iterator[tuple[float, np.ndarray]]]:
    """Return the augmentation; it has no options. Images (n, height, width, channels) → their views with weights."""

    def mirror(images: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        yield 0.5, images
        yield 0.5, images[:, :, ::-1]

    return mirror
