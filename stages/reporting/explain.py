"""Grad-CAM for the report: which parts of its most confident errors a model took for the wrong class.

This module imports TensorFlow at the top: import it late.
"""

from collections import defaultdict

import keras
import numpy as np

from stages.data import reader
from stages.inference.grad_cam import GradCam
from stages.prediction.saved_model import read_signature
from stages.reporting.drawings import kept
from stages.reporting.images import stored
from stages.reporting.results import Model
from stages.runtime import paths
from stages.runtime.files import open_input
from stages.runtime.progress import progress

IMAGES = 4  # explained images of a model
MODELS = 24  # the first; to load one takes about a second

Heat = dict[str, np.ndarray]  # heat maps by the keys of images: float32 (height, width) in [0, 1]


def heat_maps(models: list[Model]) -> dict[str, Heat]:
    """The heat maps of the most confident errors by the names of the models; nothing of models without convolutions.

    Raises:
        UserError: a model is missing or corrupt.
    """
    models = [model for model in models if not model.misclassified.empty][:MODELS]
    keys: dict[tuple[str, int | None], set[str]] = defaultdict(set)
    for model in models:
        keys[model.config.dataset, model.config.image_size].update(model.misclassified["key"][:IMAGES])
    inputs = {source: model_inputs(*source, found) for source, found in keys.items()}
    return {
        model.name: _explain(model, inputs[model.config.dataset, model.config.image_size])
        for model in progress(models, len(models), "explanations", "models")
    }


def model_inputs(dataset: str, image_size: int | None, keys: set[str]) -> dict[str, np.ndarray]:
    """What a model takes of test images, by their keys: pixels as the reader gives them, or features."""
    images = reader.backbone(dataset) is None
    found = stored(dataset, "test", keys, decode=not images)
    if not images:
        return found
    channels = reader.info(dataset).features["input"].shape[-1]  # a grayscale file among others gets them, too
    fit = reader.fit(dataset)
    decoded = {name: reader.decode_image(dataset, name, value, channels) for name, value in found.items()}
    return {
        name: (image if image_size is None else reader.resize(image, image_size, fit)).numpy()
        for name, image in decoded.items()
    }


def _explain(model: Model, inputs: dict[str, np.ndarray]) -> Heat:
    chosen = model.misclassified[:IMAGES]
    values = np.stack([inputs[key] for key in chosen["key"]])
    (heat,) = kept(_heat, model.name, model.md5, values, list(chosen["predicted"]))
    return dict(zip(chosen["key"], heat, strict=False))


def _heat(name: str, md5: str, inputs: np.ndarray, predicted: list[str]) -> list[np.ndarray]:
    """The heat maps of inputs (n, …), float32 (n, height, width); none of a model without convolutions."""
    path = paths.model(name)
    with open_input(path, f"train@{name}"):
        signature = read_signature(path)
        network = keras.models.load_model(path, compile=False, safe_mode=True)
    try:
        grad_cam = GradCam(network)
    except ValueError:  # it has no convolution
        return [np.empty((0, 0, 0), np.float32)]
    labels = np.array([signature["classes"].index(each) for each in predicted])
    backbone = signature["backbone"]
    size = (backbone["image_size"],) * 2 if backbone else network.input_shape[1:3]
    return [grad_cam(inputs, labels, size)]
