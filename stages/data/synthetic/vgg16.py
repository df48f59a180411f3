"""Generate weights of VGG16 without its top: random, He-normal, so that features have the range of trained ones."""

import io

import h5py
import numpy as np

from stages.config.datasets import WeightsConfig
from stages.data.synthetic._archives import file_name
from stages.data.synthetic._strokes import random_generator

FILTERS = {"block1": [64] * 2, "block2": [128] * 2, "block3": [256] * 3, "block4": [512] * 3, "block5": [512] * 3}


def generate(name: str, weights: WeightsConfig) -> dict[str, bytes]:
    """Generate the weights file in the HDF5 layout that Keras publishes: file name → content."""
    rng = random_generator(name)
    buffer = io.BytesIO()
    channels = 3
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        layers = []
        for block, filters in FILTERS.items():
            for number, outputs in enumerate(filters, 1):
                layers.append(f"{block}_conv{number}")
                kernel = rng.standard_normal((3, 3, channels, outputs), np.float32)
                kernel *= np.float32((2 / (9 * channels)) ** 0.5)
                group = file.create_group(layers[-1])
                arrays = {f"{layers[-1]}_W_1:0": kernel, f"{layers[-1]}_b_1:0": np.zeros(outputs, np.float32)}
                group.attrs["weight_names"] = np.array(list(arrays), "S")
                for array_name, array in arrays.items():
                    group.create_dataset(array_name, data=array, track_times=False)
                channels = outputs
            layers.append(f"{block}_pool")
            file.create_group(layers[-1]).attrs["weight_names"] = np.array([])
        file.attrs["layer_names"] = np.array(layers, "S")
    return {file_name(weights.files, ".h5"): buffer.getvalue()}
