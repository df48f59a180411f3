"""Compute bottleneck features: shards of images through a frozen backbone.

The import of the reader and of the writer takes a second: import this module after the configuration has been checked.
"""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.plugins import load_plugin
from stages.config.sections import FeaturesConfig
from stages.data import reader, writer
from stages.runtime import numerics
from stages.runtime.files import atomic_write, remove
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 32  # large enough for the full rate on a CPU


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
            backbone: keras.Model = load_plugin("backbones", name).build(image_size, weights)
        else:
            backbone = load_plugin("backbones", "_applications").build(name, image_size, weights)
        if pooling is None:
            return backbone
        pooled = keras.layers.GlobalAveragePooling2D(dtype="float32")(backbone.outputs[0])
        return keras.Model(backbone.inputs, pooled, trainable=False)
    finally:
        keras.config.set_dtype_policy(policy)


class Extractor:
    """A frozen backbone in the memory of a process, called with one batch of images after the other."""

    def __init__(self, features: FeaturesConfig, threads: int, kernels: numerics.Kernels, weights: Path) -> None:
        numerics.import_tensorflow(threads, kernels)
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        compute_dtype = numerics.resolve_compute_dtype(features.compute_dtype, kernels)
        backbone = build_backbone(features.backbone, features.image_size, features.pooling, compute_dtype, weights)
        self._forward = tf.function(backbone, autograph=False)
        self.shape: tuple[int, ...] = backbone.output_shape[1:]  # of an image's features
        self.environment = numerics.environment(threads, kernels, compute_dtype)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features of some images, (n, …) float16: half the bytes of float32, more digits than bfloat16."""
        import tensorflow as tf

        return tf.cast(self._forward(tf.constant(images), training=False), tf.float16).numpy()


def write_features(
    name: str, config: FeaturesConfig, dataset: Any, extractor: Extractor, folder: Path, unfinished: Path
) -> None:
    """Write the features of all images, a shard for each of the images' shards, and what describes them.

    Args:
        name: of the feature set.
        config: its entry in params.yaml.
        dataset: the `DatasetInfo` of the images.
        extractor: computes the features.
        folder: gets the records.
        unfinished: has the shards that an interrupted run finished, and gets those of this one.
    """
    if found := sum(1 for _ in unfinished.glob(f"{name}-*")):
        print(f"{name}: resuming with {found} shards that an earlier run finished", flush=True)
    total, before = sum(images.num_examples for images in dataset.splits.values()), 0

    def examples(shard: str) -> Iterator[tuple[str, np.ndarray, int]]:
        batches = reader.batches(config.dataset, shard, BATCH_SIZE, config.image_size)
        for batch in progress(batches, total, name, "images", lambda batch: len(batch["label"]), before):
            for key, output, label in zip(batch["key"], extractor(batch["input"]), batch["label"], strict=True):
                yield key.decode(), output, int(label)

    splits = {}
    for split, images in dataset.splits.items():
        size, number = 0, len(images.shard_lengths)
        for index, length in enumerate(images.shard_lengths):
            path = writer.shard_path(unfinished, name, split, index, number)
            if not path.exists():
                with atomic_write(path) as part:
                    writer.write_shard(part, examples(f"{split}[{index}shard:{index + 1}shard]"))
            size += path.stat().st_size - reader.OVERHEAD * length
            before += length
        splits[split] = images.shard_lengths, size
    for path in unfinished.glob(f"{name}-*"):
        shutil.move(path, folder)
    remove(unfinished)
    writer.write_info(folder, name, dataset.features["label"].names, np.empty(extractor.shape, np.float16), splits)
