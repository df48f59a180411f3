"""Images in data/records → bottleneck features of a frozen backbone in data/records: a dataset like any other."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages import params, records
from stages.console import UserError, import_tensorflow, run
from stages.precision import resolve

if TYPE_CHECKING:
    import keras

BATCH = 32  # large enough for the full rate on a CPU


def extract(name: str) -> None:
    """Write the records of feature set `name` to data/records/NAME, with the splits, keys and labels of its dataset."""
    values = params.load()
    features = params.entry(values.features, name, "features")
    weights = next(iter(values.weights[features.backbone].files))
    import_tensorflow()
    dataset = records.info(features.dataset)
    if dataset.features["input"].shape[-1] != 3:
        raise UserError(f"params.yaml: features.{name}.dataset: {features.dataset} is not in colour; choose another")

    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(resolve(features.precision))
    backbone = importlib.import_module(f"stages.backbones.{features.backbone}").build(
        features.image_size, Path("data/raw") / features.backbone / weights
    )
    records.write(
        name,
        dataset.features["label"].names,
        {split: _forward(backbone, features, split) for split in dataset.splits},
    )
    print(f"{features.backbone} features of {features.dataset}, {keras.config.dtype_policy().name}")


def _forward(backbone: "keras.Model", features: params.Features, split: str) -> Iterator[records.Example]:
    """The features of a split, a batch in memory at a time.

    Yields:
        (key, float16 features, label). float16 halves the records; its 11 bits hold more than bfloat16's 8.
    """
    import tensorflow as tf

    forward = tf.function(backbone, autograph=False)
    for batch in records.batches(features.dataset, split, BATCH, features.image_size):
        outputs = tf.cast(forward(tf.constant(batch["input"]), training=False), tf.float16).numpy()
        for key, output, label in zip(batch["key"], outputs, batch["label"], strict=True):
            yield key.decode(), np.ascontiguousarray(output), int(label)


if __name__ == "__main__":
    run(extract, "features")
