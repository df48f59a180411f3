"""Training: each model as a tutorial writes it and as the pipeline trains it; two of them also in PyTorch's eager mode.

The strong recipes have no such counterpart: here is their share of the processor's peak, and `recipes` compares three
of them with PyTorch. The timed unit is an epoch after the first one, with its validation, in the middle of a training.
Each model is as params.yaml has it for real images. The images are those in data/records, repeated or reduced to a
number that takes a second or two.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import pytorch
from benchmarks.common import (
    Done,
    Result,
    Round,
    Row,
    Table,
    Target,
    contender,
    geometric_mean,
    interleaved,
    log,
    operations,
    peak_matmul,
    quiet,
    rates,
    real_params,
)
from stages.config import params
from stages.config.models import ModelConfig
from stages.config.plugins import load_plugin
from stages.runtime.errors import UserError
from stages.runtime.numerics import dtype_policy, import_tensorflow, resolve_compute_dtype

if TYPE_CHECKING:
    import keras

    from stages.data.reader import SplitArrays

LARGE = 50e6  # operations per image, forward: larger models have a target for their share of the peak


def measure(quick: bool) -> Result:
    """Every model of params.yaml; with `quick` two of them for a short time."""
    names = list(params.load().models)
    if quick:
        return compare([name for name in names if name in ("mnist_dense", "fashion_mnist_cnn")], rounds=2, seconds=0.3)
    return compare(names, rounds=5, seconds=2)


def compare(names: list[str], rounds: int, seconds: float) -> Result:
    """Time `rounds` epochs, each of about `seconds`, of the models `names`."""
    tutorials = [name for name in names if is_tutorial(real_params().resolved_models[name])]
    table = Table("Training, and PyTorch's eager mode if it is installed", "images/s", [])
    shares = Table("Models above 50 MFLOP per image, and a bfloat16 matrix product", "GFLOP/s", [])
    with ExitStack() as stack:

        def start(work: Callable[..., None], *arguments: Any) -> Callable[[], Round]:
            return stack.enter_context(contender(work, *arguments))

        baseline, ours = start(plain_keras, tutorials, rounds, seconds), start(pipeline, names, rounds, seconds)
        for name in names:
            contenders = {"plain Keras": baseline, "pipeline": ours} if name in tutorials else {"pipeline": ours}
            first = interleaved(contenders, 1)["pipeline"][0].value  # builds, traces, warms up
            if name in pytorch.MODELS and pytorch.available():
                model = real_params().resolved_models[name]
                options = (model.batch_size, model.learning_rate)
                torch = start(pytorch.eager, name, first["images"], *input_shape_and_classes(model), *options)
                torch()
                contenders["PyTorch"] = torch
            large = first["forward"] > LARGE
            if large:
                contenders["peak"] = ours
            results = interleaved(contenders, rounds)
            peaks = results.pop("peak", [])
            row = Row(name, rates(results, "images"), {"compute_dtype": first["compute_dtype"]})
            if name in tutorials:
                table.rows.append(row)
            if large:
                peak = [one.value / one.seconds / 1e9 for one in peaks]
                reached = [one.value["operations"] / one.seconds / 1e9 for one in results["pipeline"]]
                shares.rows.append(Row(name, {"bfloat16 matrix product": peak, "pipeline": reached}))
            log(f"{name}: " + ", ".join(f"{one} {rate:,.0f}" for one, rate in row.medians.items()) + " images/s")
    ratios = {row.name: row.ratio("pipeline") for row in table.rows}
    against_torch = [
        (row.name, row.ratio("pipeline") / row.ratio("PyTorch")) for row in table.rows if "PyTorch" in row.values
    ]
    slowest = min(ratios, key=lambda name: ratios[name])
    targets = [
        Target("training against plain Keras, geometric mean", "≥ 2.5", geometric_mean(list(ratios.values()))),
        Target(f"training against plain Keras, the smallest (`{slowest}`)", "≥ 1.2", ratios[slowest]),
        *(Target(f"`{name}` against PyTorch's eager mode", "≥ 1.0", ratio) for name, ratio in against_torch),
        *(Target(f"`{row.name}`: share of the peak", "≥ 0.6", row.ratio("pipeline")) for row in shares.rows),
    ]
    remarks = [] if pytorch.available() else [f"PyTorch was not compared: {pytorch.MISSING}."]
    return Result([table, shares], targets, remarks)


def plain_keras(done: Done, names: list[str], rounds: int, seconds: float) -> None:
    """Train as a tutorial does: `model.fit` on float32 NumPy arrays, with the published settings only."""
    import_tensorflow()
    import keras

    for name in names:
        keras.backend.clear_session()
        config = real_params().resolved_models[name]
        model = tutorial(config)
        images, facts = _epoch_size(model, config, seconds)
        (inputs, labels), validation = map(to_floats, data(config, images))
        model.fit(
            inputs,
            labels,
            batch_size=config.batch_size,
            epochs=rounds + 1,
            validation_data=validation,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, facts=facts: done(facts))],
        )


def is_tutorial(config: ModelConfig) -> bool:
    """Whether Keras alone can train the model: with an optimizer of its own, at a constant learning rate."""
    return config.schedule.name == "constant" and not config.groups


def tutorial(config: ModelConfig) -> "keras.Model":
    """The compiled model as a tutorial writes it, for float32 inputs from 0 to 1: Keras's own layers and optimizer."""
    import keras

    from stages.training.augment import LayerAugmentation, build_augmentations

    shape, classes = input_shape_and_classes(config)
    model = load_plugin("models", config.architecture).build(shape, classes, **config.options)
    if config.augment:
        augmentations = build_augmentations(config.augment, seed=0)
        layers = [one._layer for one in augmentations if isinstance(one, LayerAugmentation)]
        model = keras.Sequential([keras.Input(shape), *layers, model])
    model.compile(_keras_optimizer(config), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _keras_optimizer(config: ModelConfig) -> "keras.Optimizer":
    """The optimizer of a model, without what the pipeline changes in Keras's class."""
    part = load_plugin("training.optimizers", config.optimizer.name)
    optimizer = part.build(config.learning_rate, **config.optimizer.options)
    keras_class: Any = next(one for one in type(optimizer).__mro__ if one.__module__.startswith("keras."))
    return keras_class.from_config(optimizer.get_config())


def pipeline(done: Done, names: list[str], rounds: int, seconds: float, images_per_epoch: int = 0) -> None:
    """Train as the stage does; after each epoch of a large model, a round of matrix products.

    If `images_per_epoch` is given, epochs have so many images, and there are no matrix products.
    """
    values = real_params()
    import_tensorflow(values.threads)
    import keras
    import tensorflow as tf

    from stages.data import reader
    from stages.training.loop import train_epochs
    from stages.training.network import build_model

    tf.config.experimental.enable_op_determinism()
    for name in names:
        keras.backend.clear_session()
        changes: dict[str, Any] = {"epochs": rounds + 1, "patience": None, "progressive": []}  # all epochs alike
        config = values.resolved_models[name].model_copy(update=changes)
        keras.utils.set_random_seed(values.seed)
        compute_dtype = resolve_compute_dtype(config.compute_dtype)
        keras.config.set_dtype_policy(dtype_policy(compute_dtype))
        shape, classes = input_shape_and_classes(config)
        dtype = tf.as_dtype(reader.info(config.dataset).features["input"].dtype).as_numpy_dtype
        model = build_model(config, shape, np.dtype(dtype), classes)
        images, facts = _epoch_size(model, config, seconds)
        if images_per_epoch:
            images, facts = images_per_epoch, {"images": images_per_epoch, "forward": 0.0}
        facts["compute_dtype"] = compute_dtype

        with quiet():
            for epoch, _ in train_epochs(model, config, *data(config, images), values.seed):
                done(facts)
                if facts["forward"] > LARGE and epoch > 1:
                    done(peak_matmul())


def data(config: ModelConfig, images: int) -> "tuple[SplitArrays, SplitArrays]":
    """A number of training images, and a ninth as many validation images, from the training split in data/records."""
    from stages.data import reader

    size = reader.info(config.dataset).splits["train"].num_examples
    found = reader.load(config.dataset, f"train[:{min(images, size)}]", config.image_size)

    def repeated(count: int) -> reader.SplitArrays:
        chosen = np.arange(count) % len(found.keys)
        return reader.SplitArrays(found.keys[chosen], found.inputs[chosen], found.labels[chosen])

    return repeated(images), repeated(images // 9)


def _epoch_size(model: "keras.Model", config: ModelConfig, seconds: float) -> tuple[int, dict[str, Any]]:
    """Images of an epoch that takes about `seconds` on two cores, in whole batches, and the work that they are."""
    forward, both = operations(model)
    batches = round(seconds / (1e-3 + config.batch_size * both / 250e9))
    images = config.batch_size * max(batches, 1280 // config.batch_size, 2)
    facts = {"images": images, "forward": forward, "operations": images * both + images // 9 * forward}
    return images, facts


def input_shape_and_classes(config: ModelConfig) -> tuple[tuple[int, ...], int]:
    """The shape of one input of a model, and its number of classes."""
    from stages.data import reader

    features = reader.info(config.dataset).features
    shape = tuple(features["input"].shape)
    if config.image_size:
        shape = (config.image_size, config.image_size, shape[-1])
    if None in shape:
        raise UserError(f"{config.dataset}: its images differ in size; give the model an image_size in params.yaml")
    return shape, features["label"].num_classes


def to_floats(arrays: "SplitArrays") -> tuple[np.ndarray, np.ndarray]:
    """A split as tutorials store it: pixels from 0 to 1, or features, in float32."""
    inputs = arrays.inputs.astype(np.float32)
    return (inputs / 255 if arrays.inputs.dtype == np.uint8 else inputs), arrays.labels
