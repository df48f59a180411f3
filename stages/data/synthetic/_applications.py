"""Generate weights of a network of keras.applications without its top: random, so that features depend on the image."""

import io
from typing import Any

import h5py
import numpy as np

from stages.config.datasets import WeightsConfig
from stages.config.parts import load_part
from stages.data.synthetic._archives import file_name
from stages.data.synthetic._strokes import random_generator
from stages.runtime.numerics import import_tensorflow

IMAGE_SIZE = 96  # every network takes it; the weights do not depend on it
GAIN = 1.4  # with 1, activations vanish in deep networks; with 2, those of residual ones explode


def generate(name: str, weights: WeightsConfig) -> dict[str, bytes]:
    """Generate the weights file in the HDF5 layout that Keras publishes: file name → content."""
    import_tensorflow(gpu=False)
    network = load_part("backbones", "_applications").build_untrained(name, IMAGE_SIZE)
    rng = random_generator(name)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        names = []
        for layer in network.layers:
            names.append(layer.name)
            group = file.create_group(layer.name)
            # Keras's order in these files
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            arrays = {f"{number}_{one.name}:0": _values(one, rng) for number, one in enumerate(variables)}
            group.attrs["weight_names"] = np.array(list(arrays), "S")
            for array_name, array in arrays.items():
                group.create_dataset(array_name, data=array, track_times=False)
        file.attrs["layer_names"] = np.array(names, "S")
    return {file_name(weights.files, ".h5"): buffer.getvalue()}


def _values(variable: Any, rng: np.random.Generator) -> np.ndarray:
    """Normal kernels, small normal offsets, and ones where activations are scaled."""
    shape = tuple(variable.shape)
    if "kernel" in variable.name:
        depthwise = len(shape) == 4 and shape[-1] == 1
        fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
        return rng.standard_normal(shape, np.float32) * np.float32((GAIN / fan_in) ** 0.5)
    if variable.name in ("bias", "beta"):
        return rng.standard_normal(shape, np.float32) * np.float32(0.1)
    return np.full(shape, variable.name not in ("mean", "moving_mean", "count"), np.float32)
