"""VGG16 without its top (Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014), with its preprocessing."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import keras


def build(image_size: int, weights: Path) -> "keras.Model":
    """Build the frozen convolutional layers with the weights of Keras's `notop` file.

    The input is uint8 RGB (image_size, image_size, 3); 224 pixels give features of (7, 7, 512).

    Raises:
        UserError: the weights file is corrupt, or not VGG16's.
    """
    import keras

    pixels = keras.Input((image_size, image_size, 3), dtype="uint8")
    # RGB to BGR without ImageNet's mean, in float32: bfloat16 has eight bits of precision, too few to subtract it.
    preprocess = keras.applications.vgg16.preprocess_input
    scaled = keras.layers.Lambda(lambda x: preprocess(keras.ops.cast(x, "float32")), dtype="float32")(pixels)
    try:
        network = keras.applications.VGG16(include_top=False, weights=str(weights), input_tensor=scaled)
    except (OSError, ValueError) as error:  # HDF5's; Keras's, if the layers differ
        raise UserError(
            f"{weights}: corrupt, or not VGG16's: {str(error).splitlines()[0]}; get it again with "
            "`dvc repro --force --single-item download_weights@vgg16`"
        ) from None
    network.trainable = False
    return network
