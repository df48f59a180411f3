"""Features: Keras's `predict` in float32 on images that are decoded already, and the stage from JPEG to records."""

import importlib
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import Done, Goal, Result, Row, Table, in_turn, log, operations, products, rates, side
from stages import extract, params, records
from stages.console import import_tensorflow

if TYPE_CHECKING:
    import keras


def measure(quick: bool) -> Result:
    """The first feature set of params.yaml."""
    return compare(next(iter(params.load().features)), images=32 if quick else 160, rounds=1 if quick else 5)


def compare(name: str, images: int, rounds: int) -> Result:
    """Time the first images of the training split of a feature set's dataset."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plain = stack.enter_context(side(predict, name, images, folder))
        ours = stack.enter_context(side(stage, name, images, folder))
        in_turn({"plain": plain, "stage": ours, "peak": ours}, 1)  # reads, builds, traces, warms up
        turns = in_turn({"predict, float32": plain, "stage": ours, "bfloat16 matrix product": ours}, rounds)
        (Path(folder) / "last").touch()
        cosine = plain().value
    peaks = turns.pop("bfloat16 matrix product")
    row = Row(name, rates(turns, "images"), {"precision": turns["stage"][0].value["precision"]})
    reached = Row(
        name,
        {
            "bfloat16 matrix product": [turn.value / turn.seconds / 1e9 for turn in peaks],
            "stage": [turn.value["operations"] / turn.seconds / 1e9 for turn in turns["stage"]],
        },
    )
    log(f"{name}: " + ", ".join(f"{one} {rate:,.1f}" for one, rate in row.medians.items()) + " images/s")
    goals = [
        Goal("extraction against `predict` in float32", "≥ 1.7", row.ratio("stage")),
        Goal("extraction: share of the peak", "≥ 0.8", reached.ratio("stage")),
        Goal("least cosine between an image's features and those in float32", "≥ 0.999", cosine),
    ]
    return Result([Table("Extraction", "images/s", [row]), Table("Extraction", "GFLOP/s", [reached])], goals)


def predict(done: Done, name: str, images: int, folder: str) -> None:
    """Keras's `predict` on decoded images in memory; in the last turn, compare with what the stage has written."""
    import_tensorflow()

    features, weights = feature_set(name)
    backbone = _backbone(features, weights)
    arrays = records.load(features.dataset, f"train[:{images}]", features.image_size)
    inputs = arrays.inputs.astype(np.float32)
    found = backbone.predict(inputs, verbose=0)
    done({})
    while not (Path(folder) / "last").exists():
        backbone.predict(inputs, verbose=0)
        done({"images": images})
    os.chdir(folder)
    written = records.load(name, "train")
    places = {key: place for place, key in enumerate(written.keys)}
    others = written.inputs[[places[key] for key in arrays.keys]]
    done(min(map(_cosine, found, others)))


def stage(done: Done, name: str, images: int, folder: str) -> None:
    """The stage's work on records of the first images, turn by turn with matrix products; it writes into `folder`."""
    import_tensorflow()
    import tensorflow_datasets as tfds

    features, weights = feature_set(name)
    extractor = extract.Extractor(features, weights)
    forward = images * operations(_backbone(features, weights))[0]
    dataset = records.info(features.dataset)
    builder = tfds.builder_from_directory(records.RECORDS / features.dataset)
    examples = builder.as_dataset(split=f"train[:{images}]", decoders={"input": tfds.decode.SkipDecoding()})
    jpegs = [("train", one["key"].decode(), one["input"], int(one["label"])) for one in examples.as_numpy_iterator()]
    os.chdir(folder)
    classes = dataset.features["label"].names
    records.write(features.dataset, classes, ["train"], jpegs)
    while True:
        batches = records.batches(features.dataset, "train", extract.BATCH, features.image_size)
        written = (example for batch in batches for example in extractor({"split": "train", **batch})[1])
        records.write(name, classes, ["train"], written)
        done({"images": images, "operations": forward, "precision": extractor.precision})
        done(products())


def feature_set(name: str) -> tuple[params.Features, Path]:
    """A feature set of params.yaml, and the file of its backbone's weights."""
    values = params.load()
    features = values.features[name]
    return features, Path("data/raw") / features.backbone / next(iter(values.weights[features.backbone].files))


def _backbone(features: params.Features, weights: Path) -> "keras.Model":
    return importlib.import_module(f"stages.backbones.{features.backbone}").build(features.image_size, weights)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two tensors."""
    a, b = one.astype(float).ravel(), other.astype(float).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
