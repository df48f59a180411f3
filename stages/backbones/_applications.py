"""Every network of keras.applications as a backbone, without its top and with its own preprocessing.

A backbone with a module of its own in this folder takes precedence over the network of that name.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages.backbones._networks import BUILT_IN, NETWORKS
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras


def build(name: str, image_size: int, weights: Path) -> "keras.Model":
    """Build the frozen layers with the weights of Keras's `notop` file.

    The input is uint8 RGB (image_size, image_size, 3); 224 pixels give VGG16's features of (7, 7, 512).

    Raises:
        UserError: the weights file is corrupt, or another network's; or the images are too small for the network.
    """
    network = build_untrained(name, image_size)
    try:
        network.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:  # HDF5's; Keras's, if the layers differ
        reason = " ".join(str(error).split())[:200]
        again = f"dvc repro --force --single-item download_weights@{name}"
        again = f"git checkout {weights}" if name == BUILT_IN else again
        raise UserError(
            f"{weights}: corrupt, or not {NETWORKS[name].function}'s: {reason}; get it again with `{again}`"
        ) from None
    _finish_normalization(name, network)
    network.trainable = False
    return network


def build_untrained(name: str, image_size: int) -> "keras.Model":
    """The same layers with Keras's own random weights."""
    import keras

    function = getattr(keras.applications, NETWORKS[name].function)
    pixels = keras.Input((image_size, image_size, 3), dtype="uint8")
    # In float32, whatever the network computes in: bfloat16 has eight bits of precision, too few to subtract a mean.
    scaled = sys.modules[function.__module__].preprocess_input(keras.ops.cast(pixels, "float32"))
    try:
        network = function(include_top=False, weights=None, input_tensor=scaled, **NETWORKS[name].options)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"params.yaml: features: {NETWORKS[name].function} does not fit images of {image_size} pixels: {reason}; "
            "choose another image_size"
        ) from None
    network = _scaled_in_float32(network)
    return keras.Model(network.inputs[0], network.outputs[0], name=network.name)  # some take a list of one input


def _scaled_in_float32(network: "keras.Model") -> "keras.Model":
    """Networks whose `preprocess_input` does nothing scale pixels in layers: give these float32 as well."""
    import keras

    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    if not any(isinstance(layer, kinds) for layer in network.layers):
        return network

    def clone(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if not isinstance(layer, kinds):
            return layer
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    cloned: keras.Model = keras.models.clone_model(network, clone_function=clone)
    return cloned


def _finish_normalization(name: str, network: "keras.Model") -> None:
    """Give EfficientNet (not V2) the scale that Keras adds only to the weights it has downloaded itself.

    The file holds a standard deviation as the variance, by whose square root a layer divides. Keras divides by the root
    once more, in a layer that it leaves out where weights come from a file.
    """
    import keras

    if not name.startswith("efficientnetb"):
        return
    (layer,) = (layer for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    scale = sys.modules[keras.applications.EfficientNetB0.__module__].IMAGENET_STDDEV_RGB
    layer.adapt_variance.assign(layer.adapt_variance * scale)
    layer.finalize_state()
