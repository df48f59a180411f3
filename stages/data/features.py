"""Compute bottleneck features: batches of images through a frozen backbone.

The import of the reader takes a second: import this module after the configuration has been checked.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.config.features import FeaturesConfig
from stages.config.parts import load_part
from stages.data import reader
from stages.data.examples import Example
from stages.runtime import numerics

BATCH_SIZE = 32  # large enough for the full rate on a CPU

Batch = Mapping[str, Any]  # the name of its split, and key, input and label as in `reader.batches`


def batches(dataset: str, splits: list[str], **options: Any) -> Iterator[Batch]:
    """Yield the batches of all splits with the options of `reader.batches`."""
    for split in splits:
        for batch in reader.batches(dataset, split, BATCH_SIZE, **options):
            yield {"split": split, **batch}


class Extractor:
    """A frozen backbone in the memory of a process, called with one batch of images after the other."""

    def __init__(self, features: FeaturesConfig, threads: int, weights: Path) -> None:
        numerics.import_tensorflow(threads)
        import keras
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        compute_dtype = numerics.resolve_compute_dtype(features.compute_dtype)
        keras.config.set_dtype_policy(numerics.dtype_policy(compute_dtype))
        backbone = load_part("backbones", features.backbone).build(features.image_size, weights)
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
