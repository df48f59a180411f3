"""Weights that depend on the training images."""

from typing import Any

import numpy as np
import pytest

from stages.runtime.errors import UserError
from stages.training.initializers import whitening
from stages.training.network import build_model
from tests.training.small import config

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).cumsum(axis=1).astype(np.uint8)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def network() -> Any:
    """A small network with a whitening layer."""
    options = {"mean": MEAN, "std": STD, "widths": [8], "convolutions": 2, "norm_momentum": 0.6, "logit_scale": 1.0}
    entry = config(architecture="airbench", units=None, **options)
    return build_model(entry, (8, 8, 3), np.dtype("uint8"), 2)


def test_whitened_patches_have_unit_covariance() -> None:
    model = network()
    whitening.build(layer="whitening", images=30, epsilon=1e-6)(model, PIXELS)
    kernel = np.asarray(model.layers[-1].get_layer("whitening").kernel)
    scaled = (PIXELS[:30] / 255 - MEAN) / STD
    corners = [scaled[:, row : row + 7, column : column + 7] for row in (0, 1) for column in (0, 1)]
    patches = np.stack(corners, axis=3).reshape(-1, 12)  # (row, column, channel), as the kernel
    outputs = patches @ kernel.reshape(12, 24)
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-5)
    np.testing.assert_allclose(outputs[:, :12].T @ outputs[:, :12] / len(patches), np.eye(12), atol=1e-3)


def test_whitening_epsilon_bounds_the_filters_of_constant_images() -> None:
    filters = whitening.whitening_filters(np.diag([4.0, 0.0]), epsilon=0.25)
    np.testing.assert_allclose(np.abs(filters), [[4.25**-0.5, 0, 4.25**-0.5, 0], [0, 2, 0, 2]], atol=1e-12)


@pytest.mark.parametrize("layer", ["group1_conv1", "missing"])
def test_whitening_of_a_layer_that_is_no_whitening_layer_is_one_line(layer: str) -> None:
    with pytest.raises(UserError, match=rf"initialize\.whitening\.layer: '{layer}' is not a convolution") as caught:
        whitening.build(layer=layer, images=30, epsilon=0.1)(network(), PIXELS)
    assert "\n" not in str(caught.value)
