"""Random weights of any network of keras.applications without its top, such that features depend on the image."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stages.backbones._applications import build_untrained
from stages.data.synthetic._strokes import random_generator

IMAGE_SIZE = 96  # every network takes it; the weights do not depend on it
IMAGES = 2  # that variances are measured on


def write_weights(name: str, path: Path) -> Path:
    """Write the weights of a network in the HDF5 layout that Keras publishes."""
    network = build_untrained(name, IMAGE_SIZE)
    rng = random_generator(name)
    for layer in network._flatten_layers(include_self=False):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            variable.assign(_values(variable, rng))
    _normalize(network, rng.integers(0, 256, (IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    with h5py.File(path, "w") as file:
        for layer in network.layers:
            group = file.create_group(layer.name)
            # Keras's order in these files
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            arrays = {f"{number}_{one.name}:0": np.asarray(one) for number, one in enumerate(variables)}
            group.attrs["weight_names"] = np.array(list(arrays), "S")
            for array_name, array in arrays.items():
                group.create_dataset(array_name, data=array, track_times=False)
        file.attrs["layer_names"] = np.array([layer.name for layer in network.layers], "S")
    return path


def _values(variable: Any, rng: np.random.Generator) -> np.ndarray:
    """He-normal kernels, no offsets, and ones where activations are scaled."""
    shape = tuple(variable.shape)
    if "kernel" in variable.name:
        depthwise = len(shape) == 4 and shape[-1] == 1
        fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
        return rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
    return np.full(shape, variable.name not in ("bias", "beta", "mean", "moving_mean", "count"), np.float32)


def _normalize(network: Any, pixels: np.ndarray) -> None:
    """Give batch normalization the variance of its inputs, so that signals neither vanish nor explode in deep networks.

    One power of 4 for all channels: the same on every processor, however it rounds sums.
    """
    import keras

    def measured(layer: Any) -> Any:
        call = layer.call

        def measure(inputs: Any, **options: Any) -> Any:
            mean_square = float(np.mean(np.square(np.asarray(inputs, np.float64))))
            power = 4.0 ** round(math.log(mean_square, 4)) if mean_square > 0 else 1.0
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, power, np.float32))
            return call(inputs, **options)

        return measure

    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = measured(layer)
    network(pixels, training=False)
