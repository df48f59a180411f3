"""Whitening: filters that decorrelate the patches of the training images (Coates and Ng, 2012; Page, 2018)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from stages.config.types import Positive
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras

IMAGES_AT_ONCE = 500  # bounds memory


def build(
    *, layer: str, images: Positive, epsilon: Annotated[float, Field(gt=0)]
) -> Callable[["keras.Model", np.ndarray], None]:
    """Set the kernel of a convolution to the scaled eigenvectors of its input patches, and their negatives.

    Args:
        layer: name of the convolution; it needs two filters for each value of a patch.
        images: how many of the training images to use, the first ones.
        epsilon: added to the eigenvalues, so that rare directions are not amplified without bound.
    """

    def initialize(model: "keras.Model", pixels: np.ndarray) -> None:
        *before, network = model.layers[1:]
        convolution = _find(network, layer)
        size = int(convolution.kernel.shape[0])
        total, count = np.zeros(()), 0
        for start in range(0, min(images, len(pixels)), IMAGES_AT_ONCE):
            part = pixels[start : min(start + IMAGES_AT_ONCE, images)].astype(np.float32)
            patches = _patches(_inputs_of(convolution, network, before, part), size)
            total = total + np.einsum("ni,nj->ij", patches, patches)  # unlike @, in the same order on every machine
            count += len(patches)
        filters = whitening_filters(total / count, epsilon)
        convolution.kernel.assign(filters.reshape(convolution.kernel.shape))

    return initialize


def whitening_filters(covariance: np.ndarray, epsilon: float) -> np.ndarray:
    """(values, 2 · values): each eigenvector, the largest eigenvalue first, over its root, then their negatives."""
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    scaled = (eigenvectors / np.sqrt(eigenvalues + epsilon))[:, ::-1]
    return np.concatenate([scaled, -scaled], axis=1)


def _find(network: "keras.Model", name: str) -> Any:
    """The layer of this name, if its kernel has the right shape."""
    shapes = {layer.name: tuple(layer.kernel.shape) for layer in network.layers if hasattr(layer, "kernel")}
    shape = shapes.get(name, ())
    if len(shape) != 4 or shape[0] != shape[1] or shape[3] != 2 * shape[0] * shape[1] * shape[2]:
        raise UserError(
            f"params.yaml: initialize.whitening.layer: {name!r} is not a convolution with two filters for each value "
            f"of a square patch; the layers with a kernel are {shapes}"
        )
    return network.get_layer(name)


def _inputs_of(layer: Any, network: "keras.Model", before: list[Any], pixels: np.ndarray) -> np.ndarray:
    """What a layer of the network gets for these images."""
    import keras

    values: Any = pixels
    for other in before:
        values = other(values)
    return np.asarray(keras.ops.convert_to_numpy(keras.Model(network.input, layer.input)(values)), np.float64)


def _patches(images: np.ndarray, size: int) -> np.ndarray:
    """All patches of size × size pixels: (patches, size · size · channels)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * images.shape[-1])
