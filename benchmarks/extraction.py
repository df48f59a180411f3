"""Feature extraction: Keras's `predict` in float32 on decoded images, and the stage from JPEG to records."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import (
    Done,
    Result,
    Row,
    Table,
    Target,
    contender,
    interleaved,
    log,
    operations,
    peak_matmul,
    rates,
)
from stages.config import params
from stages.config.sections import FeaturesConfig
from stages.runtime import paths
from stages.runtime.files import atomic_write
from stages.runtime.numerics import import_tensorflow, resolve_compute_dtype

if TYPE_CHECKING:
    import keras


def measure(quick: bool) -> Result:
    """The first feature set of params.yaml."""
    return compare(next(iter(params.load().features)), images=32 if quick else 160, rounds=1 if quick else 5)


def compare(name: str, images: int, rounds: int) -> Result:
    """Time the first images of the training split of a feature set's dataset."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        baseline = stack.enter_context(contender(predict, name, images, folder))
        ours = stack.enter_context(contender(stage, name, images, folder))
        interleaved({"predict": baseline, "stage": ours, "peak": ours}, 1)  # reads, builds, traces, warms up
        results = interleaved({"predict, float32": baseline, "stage": ours, "bfloat16 matrix product": ours}, rounds)
        (Path(folder) / "last").touch()
        cosine = baseline().value
    peaks = results.pop("bfloat16 matrix product")
    row = Row(name, rates(results, "images"), {"compute_dtype": results["stage"][0].value["compute_dtype"]})
    flops = Row(
        name,
        {
            "bfloat16 matrix product": [one.value / one.seconds / 1e9 for one in peaks],
            "stage": rates({"stage": results["stage"]}, "gigaflop")["stage"],
        },
    )
    log(f"{name}: " + ", ".join(f"{one} {rate:,.1f}" for one, rate in row.medians.items()) + " images/s")
    targets = [
        Target("extraction against `predict` in float32", "≥ 1.7", row.ratio("stage")),
        Target("extraction: share of the peak", "≥ 0.8", flops.ratio("stage")),
        Target("smallest cosine between an image's features and those in float32", "≥ 0.999", cosine),
    ]
    return Result([Table("Extraction", "images/s", [row]), Table("Extraction", "GFLOP/s", [flops])], targets)


def predict(done: Done, name: str, images: int, folder: str) -> None:
    """Run `predict` on decoded images in memory; in the last round, compare with the features of the stage."""
    import_tensorflow()
    from stages.data import reader

    features, weights = feature_set(name)
    backbone = _backbone(features, weights)
    arrays = reader.load(features.dataset, f"train[:{images}]", features.image_size)
    inputs = arrays.inputs.astype(np.float32)
    outputs = backbone.predict(inputs, verbose=0)
    done({})
    while not (Path(folder) / "last").exists():
        backbone.predict(inputs, verbose=0)
        done({"images": images})
    os.chdir(folder)
    written = reader.load(name, "train")
    positions = {key: position for position, key in enumerate(written.keys)}
    of_stage = written.inputs[[positions[key] for key in arrays.keys]]
    done(min(map(_cosine, outputs, of_stage)))


def stage(done: Done, name: str, images: int, folder: str) -> None:
    """Extract features of the first images into `folder`, alternating with matrix products."""
    threads = params.load().threads
    import_tensorflow(threads)
    from stages.data import reader, writer
    from stages.data.extraction import Extractor, write_features

    features, weights = feature_set(name)
    extractor = Extractor(features, threads, "native", weights)
    compute_dtype = resolve_compute_dtype(features.compute_dtype)
    forward = images * operations(_backbone(features, weights))[0]
    classes = reader.info(features.dataset).features["label"].names
    jpegs = [
        ("train", key.decode(), data, int(label))
        for batch in reader.batches(features.dataset, f"train[:{images}]", images, decode=False)
        for key, data, label in zip(batch["key"], batch["input"], batch["label"], strict=True)
    ]
    os.chdir(folder)
    writer.write(features.dataset, classes, ["train"], jpegs)
    dataset = reader.info(features.dataset)
    while True:
        with atomic_write(paths.records(name)) as target:
            target.mkdir()
            write_features(name, features, dataset, extractor, target, Path("unfinished"))
        done({"images": images, "gigaflop": forward / 1e9, "compute_dtype": compute_dtype})
        done(peak_matmul())


def feature_set(name: str) -> tuple[FeaturesConfig, Path]:
    """A feature set of params.yaml, and the file with the weights of its backbone."""
    values = params.load()
    features = values.features[name]
    return features, paths.raw(features.backbone) / next(iter(values.weights[features.backbone].files))


def _backbone(features: FeaturesConfig, weights: Path) -> "keras.Model":
    from stages.data.extraction import build_backbone

    return build_backbone(features.backbone, features.image_size, features.pooling, "float32", weights)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of the angle between two tensors."""
    a, b = one.astype(float).ravel(), other.astype(float).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
