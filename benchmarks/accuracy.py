"""What the speed costs in accuracy, seed by seed.

Models of the published epochs, as a tutorial writes them and in the pipeline; and a head over features computed in
float32 and as the pipeline does.

Takes hours, and says something on the published data alone.
"""

import statistics
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
from scipy.stats import binomtest

from benchmarks.common import Done, Goal, Result, Row, Table, in_turn, log, quiet, side
from benchmarks.extraction import feature_set
from benchmarks.training import floats, tutorial
from stages import extract, params, records, train
from stages.console import UserError, import_tensorflow
from stages.precision import resolve

MODELS = ("mnist_cnn", "imagenette_cnn")  # a small one and a large one
HEAD, HEAD_IMAGES = "imagenette_vgg16", {"train": 600, "test": 400}  # float32 takes minutes for so many


def measure(quick: bool) -> Result:
    """Three seeds each way; with `quick` one of the small model."""
    values = params.load()
    drawn = {name for name in (*MODELS, HEAD) if values.is_drawn(name)}
    if drawn and not quick:
        raise UserError(f"benchmarks: {', '.join(sorted(drawn))}: on a drawn sample; run it with source: published")
    seeds = 1 if quick else 3
    models = compare(list(MODELS[:1] if quick else MODELS), seeds)
    if quick:
        return models
    heads = compare_features(HEAD, HEAD_IMAGES, seeds)
    return Result(models.tables + heads.tables, models.goals + heads.goals)


def compare(names: list[str], seeds: int) -> Result:
    """Train the models `names` on all of the training split, and predict the test split."""
    table = Table("Accuracy on the test split, in the median of the seeds", "%", [])
    goals = []
    with side(plain_keras, names, seeds) as plain, side(pipeline, names, seeds) as ours:
        for name in names:
            turns = in_turn({"plain Keras": plain, "pipeline": ours}, seeds)
            row = Row(name, {one: [100 * turn.value for turn in done] for one, done in turns.items()})
            means = {one: statistics.mean(values) for one, values in row.values.items()}
            spread = max(max(values) - min(values) for values in row.values.values())
            row.notes = {"seeds": seeds, "spread of the seeds": f"{spread:.2f}"}
            lost = means["plain Keras"] - means["pipeline"]
            goals.append(Goal(f"`{name}`: points lost in the mean, of the seeds' spread", f"≤ {spread:.2f}", lost))
            table.rows.append(row)
            log(f"{name}: " + ", ".join(f"{one} {values}" for one, values in row.values.items()))
    return Result([table], goals)


def compare_features(name: str, images: Mapping[str, int], seeds: int) -> Result:
    """Train the model `name` on features of the first images of each split, from float32 and as they are extracted."""
    with ExitStack() as stack:
        sides = {
            one: stack.enter_context(side(head, name, images, seeds, changed))
            for one, changed in {"float32": {"precision": "float32"}, "pipeline": {}}.items()
        }
        turns = in_turn(sides, seeds)
    row = Row(name, {one: [100 * turn.value["accuracy"] for turn in done] for one, done in turns.items()})
    means = {one: statistics.mean(values) for one, values in row.values.items()}
    right = round(means["float32"] / 100 * images["test"])
    interval = binomtest(right, images["test"]).proportion_ci(0.95, method="wilson")
    lost = means["float32"] - means["pipeline"]
    row.notes = {
        "images": f"{images['train']:,} + {images['test']:,}",
        "seeds": seeds,
        "precision": turns["pipeline"][0].value["precision"],
    }
    log(f"{name}: " + ", ".join(f"features of {one} {values}" for one, values in row.values.items()))
    return Result(
        [Table("Accuracy of a head over features computed in float32, and as the pipeline computes them", "%", [row])],
        [
            Goal(
                f"`{name}`: points lost in the mean; what lies in the 95 % interval of float32's accuracy",
                f"≤ {means['float32'] - 100 * interval.low:.2f}",
                lost,
            )
        ],
    )


def plain_keras(done: Done, names: list[str], seeds: int) -> None:
    """The side of the tutorials."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    for name in names:
        recipe = params.load().recipes[name]
        (inputs, labels), test = (floats(records.load(recipe.dataset, split, recipe.image_size)) for split in _SPLITS)
        count = len(labels) - round(len(labels) * params.load().train.validation_fraction)
        for seed in range(seeds):
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)
            model = tutorial(recipe)
            tf.random.set_seed(None)  # seeded, `fit` shuffles every epoch into the same order
            model.fit(
                inputs[:count],
                labels[:count],
                batch_size=recipe.batch_size,
                epochs=recipe.epochs,
                validation_data=(inputs[count:], labels[count:]),
                verbose=0,
            )
            done(float(model.evaluate(*test, verbose=0)[1]))


def pipeline(done: Done, names: list[str], seeds: int) -> None:
    """The side of the pipeline."""
    import_tensorflow()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    for name in names:
        recipe = params.load().recipes[name]
        arrays, test = (records.load(recipe.dataset, split, recipe.image_size) for split in _SPLITS)
        for seed in range(seeds):
            done(_trained(recipe, arrays, test, _classes(recipe.dataset), seed))


def head(done: Done, name: str, images: Mapping[str, int], seeds: int, changed: Mapping[str, str]) -> None:
    """A side of `compare_features`: the feature set's entry, and what is another in it."""
    import_tensorflow()
    recipe = params.load().recipes[name]
    features, weights = feature_set(recipe.dataset)
    extractor = extract.Extractor(features.model_copy(update=changed), weights)
    found = {}
    for split in _SPLITS:
        batches = records.batches(features.dataset, f"{split}[:{images[split]}]", extract.BATCH, features.image_size)
        examples = [example for batch in batches for example in extractor({"split": split, **batch})[1]]
        _, keys, arrays, labels = (np.array(column) for column in zip(*examples, strict=True))
        found[split] = records.Arrays(keys, arrays, labels.astype(np.int32))
    for seed in range(seeds):
        accuracy = _trained(recipe, found["train"], found["test"], _classes(features.dataset), seed)
        done({"accuracy": accuracy, "precision": extractor.precision})


def _trained(recipe: params.Model, arrays: records.Arrays, test: records.Arrays, classes: int, seed: int) -> float:
    """The accuracy on `test` of a model that the pipeline trains on `arrays`, less what validates."""
    import keras

    count = len(arrays.labels) - round(len(arrays.labels) * params.load().train.validation_fraction)
    training, validation = (
        records.Arrays(arrays.keys[part], arrays.inputs[part], arrays.labels[part])
        for part in (slice(count), slice(count, None))
    )
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(resolve(recipe.precision))
    model = train.build(recipe, arrays.inputs.shape[1:], arrays.inputs.dtype, classes, seed)
    with quiet():
        list(train.epochs(model, recipe, training, validation, seed))
    right = model.predict(test.inputs, batch_size=train.PREDICT_BATCH, verbose=0).argmax(1) == test.labels
    return float(np.mean(right))


def _classes(dataset: str) -> int:
    return int(records.info(dataset).features["label"].num_classes)


_SPLITS = ("train", "test")
