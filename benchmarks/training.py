"""Each model as a tutorial writes it and as the pipeline's trainer trains it; two of them in PyTorch's eager mode too.

What is timed is an epoch after the first one, with its validation, in the middle of a fit: what repeats. The images are
those of the working directory's records, repeated or cut to a number that takes a second or two.
"""

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import pytorch
from benchmarks.common import (
    Done,
    Goal,
    Result,
    Row,
    Table,
    Turn,
    geometric_mean,
    in_turn,
    log,
    operations,
    products,
    quiet,
    rates,
    side,
)
from stages import augment, params, records, train
from stages.console import UserError, import_tensorflow
from stages.precision import resolve

if TYPE_CHECKING:
    import keras

LARGE = 50e6  # floating-point operations an image, forward: of such models the share of the peak is a goal


def measure(quick: bool) -> Result:
    """Every model of params.yaml; with `quick` two of them, for a moment."""
    names = list(params.load().models)
    if quick:
        return compare([name for name in names if name in ("mnist_dense", "fashion_mnist_cnn")], rounds=2, seconds=0.3)
    return compare(names, rounds=5, seconds=2)


def compare(names: list[str], rounds: int, seconds: float) -> Result:
    """Time the models `names`, so many epochs of about so many seconds each."""
    table = Table("Training, and PyTorch's eager mode where it is there", "images/s", [])
    shares = Table("Models above 50 MFLOP an image, and a bfloat16 matrix product", "GFLOP/s", [])
    with ExitStack() as stack:

        def start(work: Callable[..., None], *arguments: Any) -> Callable[[], Turn]:
            return stack.enter_context(side(work, *arguments))

        plain, pipeline = start(plain_keras, names, rounds, seconds), start(trainer, names, rounds, seconds)
        for name in names:
            sides = {"plain Keras": plain, "pipeline": pipeline}
            first = in_turn(sides, 1)["pipeline"][0].value  # builds, traces, warms up
            if name in pytorch.MODELS and pytorch.available():
                recipe = params.load().recipes[name]
                options = (recipe.batch_size, recipe.learning_rate)
                torch = start(pytorch.eager, name, first["images"], *_shape(recipe), *options)
                torch()
                sides["PyTorch"] = torch
            large = first["forward"] > LARGE
            if large:
                sides["peak"] = pipeline
            turns = in_turn(sides, rounds)
            peaks = turns.pop("peak", [])
            row = Row(name, rates(turns, "images"), {"precision": first["precision"]})
            table.rows.append(row)
            if large:
                reached = [turn.value["operations"] / turn.seconds / 1e9 for turn in turns["pipeline"]]
                products = [turn.value / turn.seconds / 1e9 for turn in peaks]
                shares.rows.append(Row(name, {"bfloat16 matrix product": products, "pipeline": reached}))
            log(f"{name}: " + ", ".join(f"{side} {rate:,.0f}" for side, rate in row.medians.items()) + " images/s")
    ratios = {row.name: row.ratio("pipeline") for row in table.rows}
    against_torch = [
        (row.name, row.ratio("pipeline") / row.ratio("PyTorch")) for row in table.rows if "PyTorch" in row.values
    ]
    slowest = min(ratios, key=lambda name: ratios[name])
    goals = [
        Goal("training against plain Keras, geometric mean", "≥ 2.0", geometric_mean(list(ratios.values()))),
        Goal(f"training against plain Keras, the least of all (`{slowest}`)", "≥ 1.2", ratios[slowest]),
        *(Goal(f"`{name}` against PyTorch's eager mode", "≥ 1.0", ratio) for name, ratio in against_torch),
        *(Goal(f"`{row.name}`: share of the peak", "≥ 0.5", row.ratio("pipeline")) for row in shares.rows),
    ]
    remarks = [] if pytorch.available() else [f"PyTorch was not compared: {pytorch.MISSING}."]
    return Result([table, shares], goals, remarks)


def plain_keras(done: Done, names: list[str], rounds: int, seconds: float) -> None:
    """The side of the tutorials: `model.fit` on float32 NumPy arrays, and no setting but the published ones."""
    import_tensorflow()
    import keras

    for name in names:
        keras.backend.clear_session()
        recipe = params.load().recipes[name]
        model = tutorial(recipe)
        images, facts = _amount(model, recipe, seconds)
        (inputs, labels), held_out = map(floats, data(recipe, images))
        model.fit(
            inputs,
            labels,
            batch_size=recipe.batch_size,
            epochs=rounds + 1,
            validation_data=held_out,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, facts=facts: done(facts))],
        )


def tutorial(recipe: params.Model) -> "keras.Model":
    """The compiled network of a recipe as a tutorial writes it, for float32 inputs from 0 to 1."""
    import keras

    shape, classes = _shape(recipe)
    model = importlib.import_module(f"stages.models.{recipe.architecture}").build(shape, classes, **recipe.options)
    if recipe.augment:
        model = keras.Sequential([keras.Input(shape), *augment.layers(recipe.augment, seed=0), model])
    optimizer = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[recipe.optimizer](recipe.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def trainer(done: Done, names: list[str], rounds: int, seconds: float) -> None:
    """The side of the pipeline, as `stages.train` does it; after each epoch of a large model, a turn for the peak."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    for name in names:
        keras.backend.clear_session()
        values = params.load()
        recipe = values.recipes[name].model_copy(update={"epochs": rounds + 1, "early_stopping": None})
        keras.utils.set_random_seed(values.seed)
        precision = resolve(recipe.precision)
        keras.config.set_dtype_policy(precision)
        shape, classes = _shape(recipe)
        dtype = tf.as_dtype(records.info(recipe.dataset).features["input"].dtype).as_numpy_dtype
        model = train.build(recipe, shape, np.dtype(dtype), classes, values.seed)
        images, facts = _amount(model, recipe, seconds)
        facts["precision"] = precision

        with quiet():
            for epoch, _ in train.epochs(model, recipe, *data(recipe, images), values.seed):
                done(facts)
                if facts["forward"] > LARGE and epoch > 1:
                    done(products())


def data(recipe: params.Model, images: int) -> tuple[records.Arrays, records.Arrays]:
    """So many training images, and a ninth of it to validate on, out of the records."""
    size = records.info(recipe.dataset).splits["train"].num_examples
    found = records.load(recipe.dataset, f"train[:{min(images, size)}]", recipe.image_size)

    def repeated(count: int) -> records.Arrays:
        chosen = np.arange(count) % len(found.keys)
        return records.Arrays(found.keys[chosen], found.inputs[chosen], found.labels[chosen])

    return repeated(images), repeated(images // 9)


def _amount(model: "keras.Model", recipe: params.Model, seconds: float) -> tuple[int, dict[str, Any]]:
    """Images of an epoch of about so many seconds on two cores, in whole batches, and what that takes."""
    forward, both = operations(model)
    batches = round(seconds / (1e-3 + recipe.batch_size * both / 250e9))
    images = recipe.batch_size * max(batches, 20)
    facts = {"images": images, "forward": forward, "operations": images * both + images // 9 * forward}
    return images, facts


def _shape(recipe: params.Model) -> tuple[tuple[int, ...], int]:
    """Of one input, and the number of classes."""
    features = records.info(recipe.dataset).features
    shape = tuple(features["input"].shape)
    if recipe.image_size:
        shape = (recipe.image_size, recipe.image_size, shape[-1])
    if None in shape:
        raise UserError(f"{recipe.dataset}: its images differ in size; give the model an image_size in params.yaml")
    return shape, features["label"].num_classes


def floats(arrays: records.Arrays) -> tuple[np.ndarray, np.ndarray]:
    """As tutorials hold a dataset: pixels from 0 to 1, or features, in float32."""
    inputs = arrays.inputs.astype(np.float32)
    return (inputs / 255 if arrays.inputs.dtype == np.uint8 else inputs), arrays.labels
