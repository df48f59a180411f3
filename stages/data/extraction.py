"""Compute bottleneck features: shards of images through a frozen backbone.

The import of the reader and of the writer takes a second: import this module after the configuration has been checked.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.config.plugins import load_plugin
from stages.config.sections import FeaturesConfig
from stages.data import reader, writer
from stages.runtime import numerics, paths
from stages.runtime.errors import UserError
from stages.runtime.progress import progress
from stages.runtime.tasks import Task

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 32  # large enough for the full rate on a CPU


class Shard(NamedTuple):
    """A shard of a dataset of images."""

    split: str
    position: int  # in its split
    images: int
    before: int  # images in the shards before it, of all splits


class Extracted(NamedTuple):
    """What is known of a shard of features after it was written."""

    environment: dict[str, str]  # of the computation
    shape: tuple[int, ...]  # of an image's features
    size: int  # as `writer.write_shard` returns it


def shard_tasks(name: str, config: FeaturesConfig, dataset: Any, folder: Path) -> list[Task]:
    """A task for each shard of a dataset's images: it writes the shard of their features to `folder`.

    So batches do not straddle shards, and the features do not depend on who computes which of them. `shard_extractor`
    returns the function for these tasks; their arguments are of the type `Shard`.
    """
    images = paths.records(config.dataset)
    described = tuple(path for path in sorted(images.iterdir()) if ".tfrecord-" not in path.name)
    tasks, before = [], 0
    for split, found in dataset.splits.items():
        for index, (file, number) in enumerate(zip(found.filenames, found.shard_lengths, strict=True)):
            output = writer.shard_path(folder, name, split, index, len(found.shard_lengths))
            tasks.append(Task(Shard(split, index, number, before), (*described, images / file), output))
            before += number
    return tasks


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
        self.environment = numerics.environment(threads, kernels, compute_dtype)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features of some images, (n, …) float16: half the bytes of float32, more digits than bfloat16."""
        import tensorflow as tf

        return tf.cast(self._forward(tf.constant(images), training=False), tf.float16).numpy()


def shard_extractor(
    name: str, config: FeaturesConfig, total: int, threads: int, kernels: numerics.Kernels, weights: Path
) -> Callable[[Shard, Path], Extracted]:
    """Load a backbone and return the function for `shard_tasks`, which writes a shard of features.

    Args:
        name: of the feature set, for the progress report.
        config: its entry in params.yaml.
        total: number of images of all splits, for the progress report.
        threads: TensorFlow's intra-op threads.
        kernels: the instructions that TensorFlow may compute with.
        weights: the backbone's file.
    """
    extractor = Extractor(config, threads, kernels, weights)

    def extract(shard: Shard, path: Path) -> Extracted:
        split = f"{shard.split}[{shard.position}shard:{shard.position + 1}shard]"
        batches = reader.batches(config.dataset, split, BATCH_SIZE, config.image_size)
        shape: tuple[int, ...] = ()

        def examples() -> Iterator[tuple[str, np.ndarray, int]]:
            nonlocal shape
            for batch in progress(batches, total, name, "images", lambda batch: len(batch["label"]), shard.before):
                outputs = extractor(batch["input"])
                shape = outputs.shape[1:]
                for key, output, label in zip(batch["key"], outputs, batch["label"], strict=True):
                    yield key.decode(), np.ascontiguousarray(output), int(label)

        size = writer.write_shard(path, examples())
        return Extracted(extractor.environment, shape, size)

    return extract


def describe(name: str, dataset: Any, folder: Path, extracted: list[tuple[Task, Extracted]]) -> dict[str, str]:
    """Write what describes the shards of features in `folder`, after all of `shard_tasks` have written theirs.

    Returns:
        The environment that computed the features.

    Raises:
        UserError: several did, with different number formats.
    """
    found: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for task, result in extracted:
        sizes[task.argument.split] += result.size
        for key, value in result.environment.items():
            found[key].add(value)
    if len(compute_dtypes := sorted(found["compute_dtype"])) > 1:
        raise UserError(
            f"params.yaml: features.{name}.compute_dtype: auto is {' and '.join(compute_dtypes)} on different nodes; "
            "choose one"
        )
    (shape,) = {result.shape for _, result in extracted}
    splits = {split: (images.shard_lengths, sizes[split]) for split, images in dataset.splits.items()}
    writer.write_info(folder, name, dataset.features["label"].names, np.empty(shape, np.float16), splits)
    return {key: ", ".join(sorted(values)) for key, values in found.items()}
