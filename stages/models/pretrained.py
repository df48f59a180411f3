"""A network of `pretrained`: a backbone and a trained head, whose training continues on images."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def build(network: "keras.Model", *, train_batch_norm: bool = False) -> "keras.Model":
    """Prepare the network for fine-tuning.

    Args:
        network: the network that the stage `join` writes: uint8 pixels → backbone → head.
        train_batch_norm: whether to train the backbone's batch normalization. Otherwise it keeps its statistics, scales
            and offsets: the small batches of fine-tuning would destroy in a few steps what it has learned.
    """
    import keras

    if not train_batch_norm:
        _, backbone, _ = network.layers  # the first is the input
        for layer in backbone._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    return network
