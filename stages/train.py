"""One model: fit it, save it, and predict the test split with what was saved."""

import importlib
import json
import math
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from stages import augment, checkpoint, params, records, tracking
from stages.console import UserError, import_tensorflow, run
from stages.files import replacing
from stages.precision import resolve

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

PREDICT_BATCH = 256


class Begun(NamedTuple):
    """What there is to tell of a training before its first epoch."""

    parameters: int
    images: int
    precision: str
    kept: Path  # the checkpoint


def train(name: str) -> None:
    """Write data/models/NAME.keras, data/predictions/NAME.parquet and reports/history/NAME.csv."""
    values = params.load()
    recipe = params.entry(values.recipes, name, "models")
    outputs = model, _, _ = _outputs(name)
    if values.engine == "ray" and os.environ.get("RAY_ADDRESS"):  # a training of its own gains nothing from a Ray here
        from stages import cluster

        inputs = [Path("params.yaml"), records.RECORDS / recipe.dataset]
        told = cluster.away("stages.train", name, inputs, outputs, all_devices=recipe.devices == "all")
    else:
        told = steps(name)
    begun: Begun = next(told)
    print(f"{name}: {begun.parameters:,} parameters, {begun.images:,} training images, {begun.precision}", flush=True)
    rest = {
        "seed": values.seed,
        "validation_fraction": values.train.validation_fraction,
        "computed_in": begun.precision,
    }
    with tracking.training(name, recipe, rest, str(begun.kept.resolve())) as tracked:
        for epoch, row in told:
            print(
                f"epoch {epoch}/{recipe.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
                f"validation {row['val_accuracy']:.4f}",
                flush=True,
            )
            tracked.epoch(epoch, row)
        tracked.model(model)
    begun.kept.unlink(missing_ok=True)


def steps(name: str) -> Iterator[Any]:
    """Train a model and write its outputs: what `train` does, but for telling anybody.

    Yields:
        `Begun`, then (epoch, row) as `epochs` does. The outputs are there when there is no more.
    """
    values = params.load()
    recipe = params.entry(values.recipes, name, "models")
    import_tensorflow()
    info = records.info(recipe.dataset)
    training, validation = _split(recipe.dataset, info.splits["train"].num_examples, values.train.validation_fraction)
    fitting = records.load(recipe.dataset, training, recipe.image_size)
    checking = records.load(recipe.dataset, validation, recipe.image_size)

    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(values.seed)
    tf.config.experimental.enable_op_determinism()
    precision = resolve(recipe.precision)
    keras.config.set_dtype_policy(precision)
    classes = info.features["label"].names
    with _strategy(recipe.devices).scope():
        model = build(recipe, fitting.inputs.shape[1:], fitting.inputs.dtype, len(classes), values.seed)
    kept = checkpoint.FOLDER / f"{name}-{_key(recipe, precision, fitting, checking, values.seed)}.npz"
    yield Begun(model.count_params(), len(fitting.keys), precision, kept)
    rows = {}
    for epoch, row in epochs(model, recipe, fitting, checking, values.seed, kept):
        rows[epoch] = row
        yield epoch, row
    model_path, predictions_path, history_path = _outputs(name)
    save(model, model_path)
    with replacing(history_path) as part:
        pd.DataFrame.from_dict(rows, orient="index").to_csv(part, index_label="epoch")
    del fitting, checking, model
    predictions = predict(model_path, records.load(recipe.dataset, "test", recipe.image_size), classes)
    predictions.attrs["precision"] = precision
    with replacing(predictions_path) as part:
        predictions.to_parquet(part, index=False, write_page_checksum=True)  # else most flipped bits go unseen


def _outputs(name: str) -> tuple[Path, Path, Path]:
    """Model, predictions and history."""
    return (
        Path("data/models") / f"{name}.keras",
        Path("data/predictions") / f"{name}.parquet",
        Path("reports/history") / f"{name}.csv",
    )


def build(
    recipe: params.Model, input_shape: tuple[int, ...], input_dtype: Any, num_classes: int, seed: int
) -> "keras.Model":
    """The uncompiled network of a recipe: pixels are augmented in training and scaled to [0, 1] inside the model.

    Args:
        recipe: the entry of params.yaml.
        input_shape: of one example.
        input_dtype: uint8 for pixels; anything else goes to the architecture as it is.
        num_classes: width of the output.
        seed: of the augmentation.
    """
    import keras

    inputs = outputs = keras.Input(input_shape, dtype=str(input_dtype))
    if input_dtype == np.uint8:
        outputs = keras.ops.cast(outputs, "float32")
        for layer in augment.layers(recipe.augment, seed) if recipe.augment else []:
            outputs = layer(outputs)
        outputs = keras.layers.Rescaling(1 / 255)(outputs)
    architecture = importlib.import_module(f"stages.models.{recipe.architecture}")
    try:
        network = architecture.build(tuple(outputs.shape[1:]), num_classes, **recipe.options)
    except ValueError as error:
        raise UserError(
            f"params.yaml: models: {recipe.architecture} does not fit inputs of shape {input_shape}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return keras.Model(inputs, network(outputs))


def epochs(
    model: "keras.Model",
    recipe: params.Model,
    training: records.Arrays,
    validation: records.Arrays,
    seed: int,
    kept: Path | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `model` in place by its recipe.

    Every epoch is a call of its own whose order depends on seed and epoch alone, not on the epochs before it: a
    training that was killed goes on after the last one that is in its checkpoint.

    Args:
        model: uncompiled.
        recipe: the entry of params.yaml.
        training: what it is trained on.
        validation: what it is measured on after each epoch.
        seed: of the order.
        kept: path of the checkpoint; none is written or looked for without it.

    Yields:
        The number of each epoch, from 1, and its row of the history: accuracy, loss, val_accuracy, val_loss and
        learning_rate. Those of a training that goes on come first.

    Raises:
        UserError: the loss is no longer a number.
    """
    import keras

    from stages import loops
    from stages.adam import Adam

    strategy = model.distribute_strategy  # the one in whose scope the model was built
    devices = strategy.num_replicas_in_sync
    if recipe.batch_size % devices:
        raise UserError(
            f"params.yaml: batch_size {recipe.batch_size} is no multiple of this machine's {devices} devices, or set "
            "devices to one"
        )
    with strategy.scope():
        adam = Adam if devices == 1 else keras.optimizers.Adam  # a kernel of one device's own
        optimizer = {"adam": adam, "sgd": keras.optimizers.SGD}[recipe.optimizer](recipe.learning_rate)
        if model.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        progress = checkpoint.restore(kept, model, optimizer) if kept else checkpoint.Progress()
    learn = loops.training(model, optimizer, training, recipe.batch_size)
    check = loops.checking(model, validation, PREDICT_BATCH)
    saved = time.monotonic()
    yield from enumerate(progress.rows, 1)
    if progress.rows:
        print(f"goes on after epoch {len(progress.rows)}, which an earlier run finished", flush=True)
    for epoch in range(len(progress.rows), recipe.epochs):
        if recipe.early_stopping and epoch - progress.best_epoch > recipe.early_stopping:
            break
        learning_rate = _learning_rate(recipe, epoch)
        optimizer.learning_rate = learning_rate
        order = np.random.default_rng([seed, epoch]).permutation(len(training.keys))
        loss, accuracy = learn(order[: len(order) // devices * devices])  # no device is without an image
        val_loss, val_accuracy = check(np.arange(len(validation.keys)))
        row = {
            "accuracy": accuracy,
            "loss": loss,
            "val_accuracy": val_accuracy,
            "val_loss": val_loss,
            "learning_rate": learning_rate,
        }
        if not (math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])):
            raise UserError(
                f"the loss is {row['loss']}, {row['val_loss']} in validation, in epoch {epoch + 1}; lower the learning "
                "rate in params.yaml"
            )
        progress.rows.append(row)
        if row["val_loss"] < progress.best_loss:
            progress.best_loss, progress.best_epoch = row["val_loss"], epoch
            progress.best_weights = model.get_weights() if recipe.restore_best else []
        if kept and time.monotonic() - saved >= checkpoint.SECONDS_BETWEEN:
            checkpoint.save(kept, model, optimizer, progress)
            saved = time.monotonic()
        yield epoch + 1, row
    if recipe.restore_best:
        model.set_weights(progress.best_weights)


def save(model: "keras.Model", path: Path) -> None:
    """Save `model`, which has never been compiled, the same bytes whenever it is saved."""
    with replacing(path) as part, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(part, "w") as target:
            for name in sorted(source.namelist()):
                data = source.read(name)
                if name == "metadata.json":
                    data = json.dumps({**json.loads(data), "date_saved": ""}).encode()
                elif name == "config.json":
                    data = _renumbered(data.decode()).encode()
                target.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's own date is 1980-01-01


def _renumbered(config: str) -> str:
    """Keras tells objects that layers share by their addresses in memory: number them as they come instead."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(?<="shared_object_id": )\d+', lambda found: str(numbers.setdefault(found[0], len(numbers))), config
    )


def predict(path: Path, test: records.Arrays, classes: list[str]) -> pd.DataFrame:
    """The predictions of a saved model.

    Returns:
        key, true and predicted (categories in the order of the labels), probabilities (float32, one for each class);
        in `attrs` the number of parameters and the MD5 of the model file.
    """
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    probabilities = model.predict(test.inputs, batch_size=PREDICT_BATCH, verbose=0).astype(np.float32)
    predictions = pd.DataFrame(
        {
            "key": test.keys,
            "true": pd.Categorical.from_codes(test.labels, classes),
            "predicted": pd.Categorical.from_codes(probabilities.argmax(axis=1), classes),
            "probabilities": list(probabilities),
        }
    )
    predictions.attrs["parameters"] = model.count_params()
    predictions.attrs["model"] = tracking.md5(path)
    return predictions


def _strategy(devices: str) -> "tf.distribute.Strategy":
    """One device, or all GPUs of this machine: a batch is split among them, and their gradients are averaged."""
    import tensorflow as tf

    if devices == "one":
        return tf.distribute.get_strategy()
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in found])


def _key(recipe: params.Model, precision: str, training: records.Arrays, validation: records.Arrays, seed: int) -> str:
    """The name of all that determines a training: parameters, data, code and versions."""
    import keras
    import tensorflow as tf

    from stages import adam, loops

    versions = [keras.__version__, tf.__version__, np.__version__, precision, str(seed), recipe.model_dump_json()]
    code = [
        __file__,
        adam.__file__,
        augment.__file__,
        loops.__file__,
        importlib.import_module(f"stages.models.{recipe.architecture}").__file__,
    ]
    arrays = [training.inputs, training.labels, validation.inputs, validation.labels]
    return checkpoint.key(
        [*(text.encode() for text in versions), *(Path(str(file)).read_bytes() for file in code), *arrays]
    )


def _split(dataset: str, images: int, fraction: float) -> tuple[str, str]:
    """TFDS names of what is trained on and what is held out of the published training split."""
    held_out = round(images * fraction)
    if not 0 < held_out < images:
        raise UserError(
            f"params.yaml: train.validation_fraction: {fraction} of the {images} training images of {dataset} leaves "
            "an empty split; choose another"
        )
    return f"train[:-{held_out}]", f"train[-{held_out}:]"


def _learning_rate(recipe: params.Model, epoch: int) -> float:
    """Of an epoch, from 0. The cosine falls from the recipe's rate towards zero at the end of the last epoch."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


if __name__ == "__main__":
    run(train, "model")
