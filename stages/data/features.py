"""Compute bottleneck features: batches of images through a frozen backbone.

The import of the reader takes a second: import this module after the configuration has been checked.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.features import FeaturesConfig
from stages.config.parts import load_part
from stages.data import reader
from stages.data.examples import Example
from stages.runtime import numerics

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 32  # large enough for the full rate on a CPU

Batch = Mapping[str, Any]  # the name of its split, and key, input and label as in `reader.batches`


def batches(dataset: str, splits: list[str], **options: Any) -> Iterator[Batch]:
    """Yield the batches of all splits with the options of `reader.batches`."""
    for split in splits:
        for batch in reader.batches(dataset, split, BATCH_SIZE, **options):
            yield {"split": split, **batch}


def build_backbone(name: str, image_size: int, pooling: str | None, compute_dtype: str, weights: Path) -> "keras.Model":
    """Build a frozen backbone: uint8 pixels (image_size, image_size, 3) → features.

    Args:
        name: of a module in stages/backbones, or of a network of keras.applications in lower case.
        image_size: height and width of the images.
        pooling: avg: the mean of each feature map, in float32.
        compute_dtype: a number format, or auto for the fastest of this machine.
        weights: the file.
    """
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(numerics.dtype_policy(numerics.resolve_compute_dtype(compute_dtype)))
    try:
        if find_spec(f"stages.backbones.{name}"):
            backbone: keras.Model = load_part("backbones", name).build(image_size, weights)
        else:
            backbone = load_part("backbones", "_applications").build(name, image_size, weights)
        if pooling is None:
            return backbone
        pooled = keras.layers.GlobalAveragePooling2D(dtype="float32")(backbone.outputs[0])
        return keras.Model(backbone.inputs, pooled, trainable=False)
    finally:
        keras.config.set_dtype_policy(policy)


class Extractor:
    """A frozen backbone in the memory of a process, called with one batch of images after the other."""

    def __init__(self, features: FeaturesConfig, threads: int, weights: Path) -> None:
        numerics.import_tensorflow(threads)
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        compute_dtype = numerics.resolve_compute_dtype(features.compute_dtype)
        backbone = build_backbone(features.backbone, features.image_size, features.pooling, compute_dtype, weights)
        self._forward = tf.function(backbone, autograph=False)
        self._environment = numerics.environment(threads, compute_dtype)

    def __call__(self, batch: Batch) -> tuple[dict[str, str], list[Example]]:
        """Return the environment of the computation, and examples with float16 features.

        float16 takes half the bytes of float32 and has more digits than bfloat16.
        """
        import tensorflow as tf

        outputs = tf.cast(self._forward(tf.constant(batch["input"]), training=False), tf.float16).numpy()
        return self._environment, [
            (batch["split"], key.decode(), np.ascontiguousarray(output), int(label))
            for key, output, label in zip(batch["key"], outputs, batch["label"], strict=True)
        ]
