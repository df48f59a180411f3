"""The cost of speed in accuracy, over seeds.

Trains models for their published epochs, as a tutorial writes them and in the pipeline; and a head on features computed
in float32 and as the pipeline computes them. Takes hours, and is meaningful only on the real data.
"""

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

from benchmarks.common import Done, Result, Row, Table, Target, contender, interleaved, log, quiet
from benchmarks.extraction import feature_set
from benchmarks.training import to_floats, tutorial
from stages.config import params
from stages.config.models import ModelConfig
from stages.runtime.errors import UserError
from stages.runtime.numerics import dtype_policy, import_tensorflow, resolve_compute_dtype

if TYPE_CHECKING:
    from stages.data.reader import SplitArrays

MODELS = ("mnist_cnn", "imagenette_cnn")  # a small and a large one
HEAD, HEAD_IMAGES = "imagenette_vgg16", {"train": 600, "test": 400}  # these take minutes in float32

SPLITS = ("train", "test")


def measure(quick: bool) -> Result:
    """Three seeds for each contender; with `quick` one seed of the small model."""
    values = params.load()
    synthetic = {name for name in (*MODELS, HEAD) if values.is_model_synthetic(name)}
    if synthetic and not quick:
        raise UserError(f"benchmarks: {', '.join(sorted(synthetic))}: on synthetic data; set source: real")
    seeds = 1 if quick else 3
    models = compare(list(MODELS[:1] if quick else MODELS), seeds)
    if quick:
        return models
    heads = compare_features(HEAD, HEAD_IMAGES, seeds)
    return Result(models.tables + heads.tables, models.targets + heads.targets)


def compare(names: list[str], seeds: int) -> Result:
    """Train the models `names` without their validation images, and measure them on the test split."""
    table = Table("Accuracy on the test split, median over seeds", "%", [])
    targets = []
    with contender(plain_keras, names, seeds) as baseline, contender(pipeline, names, seeds) as ours:
        for name in names:
            results = interleaved({"plain Keras": baseline, "pipeline": ours}, seeds)
            row = Row(name, {one: [100 * done.value for done in rounds] for one, rounds in results.items()})
            means = {one: statistics.mean(values) for one, values in row.values.items()}
            spread = max(max(values) - min(values) for values in row.values.values())
            row.notes = {"seeds": seeds, "spread over seeds": f"{spread:.2f}"}
            loss = means["plain Keras"] - means["pipeline"]
            what = f"`{name}`: mean loss in points, against the spread over seeds"
            targets.append(Target(what, f"≤ {spread:.2f}", loss))
            table.rows.append(row)
            log(f"{name}: " + ", ".join(f"{one} {values}" for one, values in row.values.items()))
    return Result([table], targets)


def compare_features(name: str, images: Mapping[str, int], seeds: int) -> Result:
    """Train the model `name` on features of the first images of each split, in float32 and as they are extracted."""
    with ExitStack() as stack:
        contenders = {
            one: stack.enter_context(contender(head, name, images, seeds, changes))
            for one, changes in {"float32": {"compute_dtype": "float32"}, "pipeline": {}}.items()
        }
        results = interleaved(contenders, seeds)
    row = Row(name, {one: [100 * done.value["accuracy"] for done in rounds] for one, rounds in results.items()})
    means = {one: statistics.mean(values) for one, values in row.values.items()}
    correct = round(means["float32"] / 100 * images["test"])
    interval = binomtest(correct, images["test"]).proportion_ci(0.95, method="wilson")
    row.notes = {
        "images": f"{images['train']:,} + {images['test']:,}",
        "seeds": seeds,
        "compute_dtype": results["pipeline"][0].value["compute_dtype"],
    }
    log(f"{name}: " + ", ".join(f"features in {one} {values}" for one, values in row.values.items()))
    target = Target(
        f"`{name}`: mean loss in points, against the 95 % interval of float32's accuracy",
        f"≤ {means['float32'] - 100 * interval.low:.2f}",
        means["float32"] - means["pipeline"],
    )
    title = "Accuracy of a head on features computed in float32, and as the pipeline computes them"
    return Result([Table(title, "%", [row])], [target])


def plain_keras(done: Done, names: list[str], seeds: int) -> None:
    """Train as tutorials do."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    from stages.data import reader

    for name in names:
        config = params.load().resolved_models[name]
        (inputs, labels), test = (
            to_floats(reader.load(config.dataset, split, config.image_size)) for split in ("train", "test")
        )
        count = len(labels) - round(len(labels) * params.load().train.validation_fraction)
        for seed in range(seeds):
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)
            model = tutorial(config)
            tf.random.set_seed(None)  # with a seed, `fit` shuffles every epoch into the same order
            model.fit(
                inputs[:count],
                labels[:count],
                batch_size=config.batch_size,
                epochs=config.epochs,
                validation_data=(inputs[count:], labels[count:]),
                verbose=0,
            )
            done(float(model.evaluate(*test, verbose=0)[1]))


def pipeline(done: Done, names: list[str], seeds: int) -> None:
    """Train as the pipeline does."""
    values = params.load()
    import_tensorflow(values.threads)
    import tensorflow as tf

    from stages.data import reader

    tf.config.experimental.enable_op_determinism()
    for name in names:
        config = values.resolved_models[name]
        train, test = (reader.load(config.dataset, split, config.image_size) for split in SPLITS)
        for seed in range(seeds):
            done(_accuracy(config, train, test, _classes(config.dataset), seed))


def head(done: Done, name: str, images: Mapping[str, int], seeds: int, changes: Mapping[str, str]) -> None:
    """Extract features with `changes` to the entry of the feature set, and train the model `name` on them."""
    values = params.load()
    import_tensorflow(values.threads)
    from stages.data import reader
    from stages.data.extraction import BATCH_SIZE, Extractor

    config = values.resolved_models[name]
    features, weights = feature_set(config.dataset)
    features = features.model_copy(update=changes)
    extractor = Extractor(features, values.threads, "native", weights)
    splits = {}
    for split in SPLITS:
        batches = reader.batches(features.dataset, f"{split}[:{images[split]}]", BATCH_SIZE, features.image_size)
        columns = [(batch["key"], extractor(batch["input"]), batch["label"]) for batch in batches]
        keys, inputs, labels = map(np.concatenate, zip(*columns, strict=True))
        splits[split] = reader.SplitArrays(keys, inputs, labels.astype(np.int32))
    for seed in range(seeds):
        accuracy = _accuracy(config, splits["train"], splits["test"], _classes(features.dataset), seed)
        done({"accuracy": accuracy, "compute_dtype": resolve_compute_dtype(features.compute_dtype)})


def _accuracy(config: ModelConfig, arrays: "SplitArrays", test: "SplitArrays", classes: int, seed: int) -> float:
    """The test accuracy of a model that the pipeline trains on `arrays` without their validation part."""
    import keras

    from stages.data.reader import SplitArrays
    from stages.prediction.eval_batch_size import eval_batch_size
    from stages.training.loop import train_epochs
    from stages.training.network import build_model

    count = len(arrays.labels) - round(len(arrays.labels) * params.load().train.validation_fraction)
    train, validation = (
        SplitArrays(arrays.keys[part], arrays.inputs[part], arrays.labels[part])
        for part in (slice(count), slice(count, None))
    )
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(dtype_policy(resolve_compute_dtype(config.compute_dtype)))
    model = build_model(config, arrays.inputs.shape[1:], arrays.inputs.dtype, classes)
    with quiet():
        list(train_epochs(model, config, train, validation, seed))
    predicted = model.predict(test.inputs, batch_size=eval_batch_size(model), verbose=0).argmax(1)
    return float(np.mean(predicted == test.labels))


def _classes(dataset: str) -> int:
    from stages.data import reader

    return int(reader.info(dataset).features["label"].num_classes)
