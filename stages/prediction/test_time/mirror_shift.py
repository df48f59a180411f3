"""Test-time augmentation: each image and two shifted ones, each with its mirror image."""

from collections.abc import Callable, Iterator

import numpy as np

from stages.config.types import Positive


def build(*, shift: Positive) -> Callable[[np.ndarray], Iterator[tuple[float, np.ndarray]]]:
    """Return the augmentation. Images (n, height, width, channels) → their views with weights.

    The images as they are have half of the weight; the images shifted up and left, and down and right, the other half.

    Args:
        shift: pixels, on both axes; the border is filled by reflection.
    """

    def mirror_shift(images: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        height, width = images.shape[1:3]
        padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), "reflect")
        last = padded[:, 2 * shift : 2 * shift + height, 2 * shift : 2 * shift + width]
        for weight, view in ((0.25, images), (0.125, padded[:, :height, :width]), (0.125, last)):
            yield weight, view
            yield weight, view[:, :, ::-1]

    return mirror_shift
