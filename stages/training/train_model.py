"""Train one model and write its outputs, on this machine; stages.cluster runs the same function on another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stages.config.models import ModelConfig
from stages.config.plugins import load_plugin
from stages.runtime import numerics, paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash


class TrainingInfo(NamedTuple):
    """Facts about a training that are known before its first epoch."""

    parameters: int
    images: int
    compute_dtype: str
    checkpoint: Path


def run(
    name: str,
    model: ModelConfig,
    seed: int,
    validation_fraction: float,
    threads: int,
    memory: float,
    pretrained: Path | None = None,
) -> Iterator[TrainingInfo | tuple[int, dict[str, float]]]:
    """Train a model, save it, load it again and predict the test split.

    Args:
        name: the model.
        model: its resolved configuration.
        seed: of the weights, the order of the images, dropout and augmentation.
        validation_fraction: of the training split, to validate with unless the dataset has a validation split.
        threads: that share an operation.
        memory: GiB that the inputs of a split may take; a larger split is streamed, with the same results.
        pretrained: the file of a network to continue with.

    Yields:
        `TrainingInfo`, then the number and the row of the history of each epoch. When it ends, `outputs` are written.
    """
    numerics.import_tensorflow(threads)
    import keras
    import tensorflow as tf

    from stages.data import reader
    from stages.data.stream import open_split
    from stages.evaluation import predictions
    from stages.prediction.predict import Facts, predict_records
    from stages.prediction.saved_model import save
    from stages.training import checkpoint
    from stages.training.build import build_model, build_strategy
    from stages.training.loop import train_epochs

    strategy = build_strategy(model.distribution)
    info = reader.info(model.dataset)
    images = {split: found.num_examples for split, found in info.splits.items()}
    train_split, validation_split = _splits(model.dataset, images, validation_fraction)
    train = open_split(model.dataset, train_split, model.image_size, memory)
    validation = open_split(model.dataset, validation_split, model.image_size, memory)
    classes = info.features["label"].names

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    compute_dtype = numerics.resolve_compute_dtype(model.compute_dtype)
    keras.config.set_dtype_policy(numerics.dtype_policy(compute_dtype))
    with strategy.scope():
        network = build_model(model, train.inputs.shape[1:], train.inputs.dtype, len(classes), pretrained)
        for initializer, options in model.initialize.items():
            load_plugin("training.initializers", initializer).build(**options)(network, train.inputs)
    environment = numerics.environment(threads, compute_dtype)
    start = environment | {"devices": str(strategy.num_replicas_in_sync)}  # fewer than the machine has may be visible
    if pretrained:
        start["pretrained"] = file_hash(pretrained, "md5")
    data = checkpoint.data_identity(model.dataset, [train_split, validation_split])
    checkpoint_path = checkpoint.checkpoint_path(name, model, start, seed, data)
    checkpoint.remove_others(checkpoint_path, name)
    yield TrainingInfo(network.count_params(), len(train), compute_dtype, checkpoint_path)

    rows = {}
    for epoch, row in train_epochs(network, model, train, validation, seed, checkpoint_path, name):
        rows[epoch] = row
        yield epoch, row
    save(network, paths.model(name), _signature(model, classes, train.inputs.shape[1:], reader.backbone(model.dataset)))
    _write_history(name, rows)
    with atomic_write(paths.environment("train", name)) as part:
        part.write_text(json.dumps(environment, indent=1) + "\n", encoding="utf-8")
    facts = Facts(classes, compute_dtype, len(validation))
    del train, validation, network  # before the test split is read
    title = f"{name}: test split"
    predicted = predict_records(paths.model(name), model.dataset, model.image_size, facts, title, model.test_time)
    predictions.write(paths.predictions(name), predicted)


def _signature(
    model: ModelConfig, classes: list[str], input_shape: tuple[int, ...], backbone: dict[str, Any] | None
) -> dict[str, Any]:
    """What is needed to use the model; see `stages.prediction.saved_model.read_signature`."""
    return {
        "dataset": model.dataset,
        "classes": classes,
        "image_size": None if backbone else input_shape[0],
        "channels": 3 if backbone else input_shape[2],
        "test_time": model.test_time and model.test_time.model_dump(),
        "backbone": backbone,
    }


def outputs(name: str) -> list[Path]:
    """Model, predictions, history, and the environment that they were computed in."""
    return [paths.model(name), paths.predictions(name), paths.history(name), paths.environment("train", name)]


def _write_history(name: str, rows: dict[int, Any]) -> None:
    import pandas as pd

    with atomic_write(paths.history(name)) as part:
        pd.DataFrame.from_dict(rows, orient="index").to_csv(part, index_label="epoch")


def _splits(dataset: str, images: dict[str, int], fraction: float) -> tuple[str, str]:
    """The training and the validation split in the syntax of TFDS: the dataset's own, or parts of its training split.

    Args:
        dataset: its name.
        images: number of images of each of its splits.
        fraction: of the training split.
    """
    if "validation" in images:
        return "train", "validation"
    count = images["train"]
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise UserError(
            f"params.yaml: train.validation_fraction: {fraction} of the {count} training images of {dataset} leaves "
            "an empty split; choose another"
        )
    return f"train[:-{held_out}]", f"train[-{held_out}:]"
