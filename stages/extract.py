"""Images in data/records → bottleneck features of a frozen backbone in data/records: a dataset like any other."""

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages import params, records
from stages.console import UserError, import_tensorflow, run
from stages.files import reading
from stages.precision import resolve

BATCH = 32  # large enough for the full rate on a CPU

Batch = Mapping[str, Any]  # of one split, its name, beside key, input and label of `records.batches`


def extract(name: str) -> None:
    """Write the records of feature set `name` to data/records/NAME, with the splits, keys and labels of its dataset."""
    values = params.load()
    features = params.entry(values.features, name, "features")
    weights = _weights(values, features.backbone)
    import_tensorflow()
    dataset = records.info(features.dataset)
    if dataset.features["input"].shape[-1] != 3:
        raise UserError(f"params.yaml: features.{name}.dataset: {features.dataset} is not in colour; choose another")
    classes = dataset.features["label"].names
    read = partial(_batches, features.dataset, list(dataset.splits))
    if values.engine == "ray":
        from stages import cluster

        decode = partial(records.decoded, features.dataset, features.image_size)
        with cluster.mapped(partial(read, decode=False), decode, partial(Extractor, features), [weights]) as outputs:
            precision = _write(name, classes, dataset.splits, outputs)
    else:
        batches = read(image_size=features.image_size)
        precision = _write(name, classes, dataset.splits, map(Extractor(features, weights), batches))
    print(f"{features.backbone} features of {features.dataset}, {precision}")


class Extractor:
    """A frozen backbone in the memory of a process, called with one batch of images after the other."""

    def __init__(self, features: params.Features, weights: Path) -> None:
        import_tensorflow()
        import keras
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        self.precision = resolve(features.precision)
        keras.config.set_dtype_policy(self.precision)
        backbone = importlib.import_module(f"stages.backbones.{features.backbone}")
        self._forward = tf.function(backbone.build(features.image_size, weights), autograph=False)

    def __call__(self, batch: Batch) -> tuple[str, list[records.Example]]:
        """Precision, and examples whose features are float16: half of float32's bytes, more digits than bfloat16's."""
        import tensorflow as tf

        outputs = tf.cast(self._forward(tf.constant(batch["input"]), training=False), tf.float16).numpy()
        return self.precision, [
            (batch["split"], key.decode(), np.ascontiguousarray(output), int(label))
            for key, output, label in zip(batch["key"], outputs, batch["label"], strict=True)
        ]


def _weights(values: params.Params, backbone: str) -> Path:
    """The file of a backbone's weights. Held against its hashes where it was fetched: it has no checksum of its own."""
    entry = values.weights[backbone]
    ((name, sources),) = entry.files.items()
    path = Path("data/raw") / backbone / name
    with reading(path, f"download_weights@{backbone}") as file:
        data = file.read()
        if not values.is_sample(entry) and not any(
            hashlib.new(kind, data, usedforsecurity=False).hexdigest() == expected
            for kind, _, expected in (source.hash.partition(":") for source in sources)
        ):
            raise ValueError("its hash is none of those in params.yaml")
    return path


def _batches(dataset: str, splits: list[str], **options: Any) -> Iterator[Batch]:
    """All splits, one after the other. `options` are those of `records.batches`."""
    for split in splits:
        for batch in records.batches(dataset, split, BATCH, **options):
            yield {"split": split, **batch}


def _write(
    name: str, classes: list[str], splits: Iterable[str], outputs: Iterator[tuple[str, list[records.Example]]]
) -> str:
    """Write what an `Extractor` made, or several did, as records; the precision of it."""
    precisions: set[str] = set()

    def examples() -> Iterator[records.Example]:
        for precision, found in outputs:
            precisions.add(precision)
            if len(precisions) > 1:
                raise UserError(
                    f"params.yaml: features.{name}.precision: auto is {' and '.join(sorted(precisions))} on different "
                    "nodes; choose one"
                )
            yield from found

    records.write(name, classes, splits, examples())
    return precisions.pop()


if __name__ == "__main__":
    run(extract, "features")
