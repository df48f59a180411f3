"""Batch size of validation and prediction, bounded by memory."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

MAX_EVAL_BATCH = 256
ACTIVATION_BYTES = 2**28  # most bytes of a layer's inputs and outputs, for one batch


def eval_batch_size(model: "keras.Model") -> int:
    """The largest power of two, up to 256, for which a layer's inputs and outputs fit into `ACTIVATION_BYTES`.

    It depends on the shapes of the model alone, not on the memory of a machine or on the number format: kernels may
    round an example differently in batches of different sizes, so the same model must get the same batches everywhere.
    """
    largest = max(map(_example_bytes, model._flatten_layers(include_self=False)), default=1)
    return max(1, min(MAX_EVAL_BATCH, 2 ** int(math.log2(max(1, ACTIVATION_BYTES // max(1, largest))))))


def _example_bytes(layer: "keras.layers.Layer") -> int:
    """Bytes of a layer's inputs and outputs for one example, as float32."""
    import keras

    try:
        tensors = keras.tree.flatten([layer.input, layer.output])
    except (AttributeError, ValueError):  # it was never called with symbolic inputs
        return 0
    return sum(4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
