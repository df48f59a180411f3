"""What the speed costs in accuracy: the published epochs, seed by seed, as a tutorial writes it and in the pipeline.

Takes hours, and says something on the published data alone.
"""

import statistics

import numpy as np

from benchmarks.common import Done, Goal, Result, Row, Table, in_turn, log, quiet, side
from benchmarks.training import floats, tutorial
from stages import params, records, train
from stages.console import UserError, import_tensorflow
from stages.precision import resolve

MODELS = ("mnist_cnn", "imagenette_cnn")  # a small one and a large one


def measure(quick: bool) -> Result:
    """Three seeds each way; with `quick` one."""
    values = params.load()
    drawn = {name for name in MODELS if values.is_sample(values.datasets[values.models[name].dataset])}
    if drawn and not quick:
        raise UserError(f"benchmarks: {', '.join(sorted(drawn))}: on a drawn sample; run it with source: published")
    return compare(list(MODELS[:1] if quick else MODELS), seeds=1 if quick else 3)


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


def plain_keras(done: Done, names: list[str], seeds: int) -> None:
    """The side of the tutorials."""
    import_tensorflow()
    import keras

    for name in names:
        recipe = params.load().recipes[name]
        (inputs, labels), test = (floats(records.load(recipe.dataset, split, recipe.image_size)) for split in _SPLITS)
        count = len(labels) - round(len(labels) * params.load().train.validation_fraction)
        for seed in range(seeds):
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)
            model = tutorial(recipe)
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
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    for name in names:
        recipe = params.load().recipes[name]
        arrays, test = (records.load(recipe.dataset, split, recipe.image_size) for split in _SPLITS)
        count = len(arrays.labels) - round(len(arrays.labels) * params.load().train.validation_fraction)
        training, validation = (
            records.Arrays(arrays.keys[part], arrays.inputs[part], arrays.labels[part])
            for part in (slice(count), slice(count, None))
        )
        for seed in range(seeds):
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)
            keras.config.set_dtype_policy(resolve(recipe.precision))
            classes = records.info(recipe.dataset).features["label"].num_classes
            model = train.build(recipe, arrays.inputs.shape[1:], arrays.inputs.dtype, classes, seed)
            with quiet():
                train.fit(model, recipe, training, validation, seed)
            right = model.predict(test.inputs, batch_size=train.PREDICT_BATCH, verbose=0).argmax(1) == test.labels
            done(float(np.mean(right)))


_SPLITS = ("train", "test")
