"""Train one model and write its outputs, on this machine; stages.cluster runs the same function on another."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.config.models import ModelConfig
from stages.config.plugins import build_plugin
from stages.config.schema import Params
from stages.runtime import numerics, paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash, write_json
from stages.runtime.identity import data_identity

SECONDS_BETWEEN = 1.0  # between two writings of the history


class TrainingInfo(NamedTuple):
    """Facts about a training that are known before its first epoch."""

    parameters: int
    images: int
    compute_dtype: str
    checkpoint: Path


@dataclass(frozen=True)
class Training:
    """What decides a training."""

    name: str
    model: ModelConfig  # resolved
    seed: int  # seeds initial weights, shuffling, dropout and augmentation
    validation_fraction: float  # of the training split, unless the dataset has a validation split; 0: none validates
    threads: int  # TensorFlow's intra-op threads
    kernels: numerics.Kernels
    synthetic: bool  # whether the images, or the weights of their backbone, are generated
    pretrained: Path | None  # the file of a network to continue with

    @classmethod
    def of(cls, name: str, params: Params) -> "Training":
        """The training of a model of params.yaml."""
        return cls(
            name=name,
            model=params.resolved_models[name],
            seed=params.seed,
            validation_fraction=params.train.validation_fraction,
            threads=params.threads,
            kernels=params.model_kernels(name),
            synthetic=params.is_model_synthetic(name),
            pretrained=params.pretrained_network(name),
        )

    @property
    def inputs(self) -> list[Path]:
        """Files and folders that it reads; params.yaml for messages, which name a stage."""
        return [paths.PARAMS, paths.records(self.model.dataset), *([self.pretrained] if self.pretrained else [])]

    @property
    def outputs(self) -> list[Path]:
        """Model, predictions, history, and the environment that they were computed in."""
        name = self.name
        return [paths.model(name), paths.predictions(name), paths.history(name), paths.environment("train", name)]


def run(training: Training, memory: float) -> Iterator[TrainingInfo | tuple[int, dict[str, float]]]:
    """Train a model, save it, load it again and predict the test split.

    The history is written about every second, the other outputs at the end.

    Args:
        training: what decides the training.
        memory: GiB that the inputs of a split may take; a larger split is on disk, with the same results.

    Yields:
        `TrainingInfo`, then the number and the row of the history of each epoch.
    """
    name, config = training.name, training.model
    numerics.import_tensorflow(training.threads, training.kernels)
    import keras
    import tensorflow as tf

    from stages.data import reader
    from stages.evaluation import predictions
    from stages.prediction.predict import Facts, calibrate, predict_records
    from stages.prediction.saved_model import save
    from stages.training import checkpoint
    from stages.training.loop import train_epochs
    from stages.training.network import build_model, build_strategy

    strategy = build_strategy(config.distribution)
    info = reader.info(config.dataset)
    images = {split: described.num_examples for split, described in info.splits.items()}
    train_split, validation_split = _splits(config.dataset, images, training.validation_fraction)
    train = reader.load(config.dataset, train_split, config.image_size, memory)
    validation = None
    if validation_split:
        validation = reader.load(config.dataset, validation_split, config.image_size, memory)
    classes = info.features["label"].names
    if absent := [classes[label] for label in sorted({*range(len(classes))} - {*np.unique(train.labels).tolist()})]:
        how = "" if "validation" in images else ", which were held out to validate"
        print(f"{name}: {len(absent)} classes, such as {absent[0]!r}, have no images to train with{how}", flush=True)

    keras.utils.set_random_seed(training.seed)
    tf.config.experimental.enable_op_determinism()
    compute_dtype = numerics.resolve_compute_dtype(config.compute_dtype, training.kernels)
    keras.config.set_dtype_policy(numerics.dtype_policy(compute_dtype))
    with strategy.scope():
        model = build_model(config, train.inputs.shape[1:], train.inputs.dtype, len(classes), training.pretrained)
        for initializer in config.initialize:
            build_plugin("training.initializers", initializer)(model, train.inputs)
    environment = numerics.environment(training.threads, training.kernels, compute_dtype)
    start = environment | {"devices": str(strategy.num_replicas_in_sync)}  # fewer than the machine has may be visible
    if strategy.num_replicas_in_sync > 1:
        environment["devices"] = start["devices"]
    if training.pretrained:
        start["pretrained"] = file_hash(training.pretrained, "md5")
    data = data_identity(config.dataset, [train_split, validation_split or ""])
    checkpoint_path = checkpoint.checkpoint_path(name, config, start, training.seed, data)
    checkpoint.remove_others(checkpoint_path, name)
    yield TrainingInfo(model.count_params(), len(train), compute_dtype, checkpoint_path)

    rows, written = {}, -math.inf
    for epoch, row in train_epochs(model, config, train, validation, training.seed, checkpoint_path, name):
        rows[epoch] = row
        if time.monotonic() - written >= SECONDS_BETWEEN:
            _write_history(name, rows)
            written = time.monotonic()
        yield epoch, row
    _write_history(name, rows)
    calibration: dict[str, float | None] = {}
    means = None
    if validation_split:
        title, splits = f"{name}: validation split", (train_split, validation_split)
        calibration, means = calibrate(model, config.dataset, splits, config.image_size, title, config)
    save(model, paths.model(name), _signature(training, classes, train.inputs.shape[1:]) | calibration, means)
    write_json(environment, paths.environment("train", name), indent=1)
    facts = Facts(classes, compute_dtype, len(validation) if validation else 0)
    del train, validation, model  # before the test split is read
    title = f"{name}: test split"
    predicted = predict_records(paths.model(name), config.dataset, config.image_size, facts, title, config.test_time)
    predictions.write(paths.predictions(name), predicted)


def _signature(training: Training, classes: list[str], input_shape: tuple[int, ...]) -> dict[str, Any]:
    """What is needed to use the model; see `stages.prediction.saved_model.read_signature`."""
    from stages.data import reader

    config, backbone = training.model, reader.backbone(training.model.dataset)
    fit = reader.fit(config.dataset)
    return {
        "dataset": config.dataset,
        "source": "synthetic" if training.synthetic else "real",
        "kernels": training.kernels,
        "classes": classes,
        "image_size": None if backbone else input_shape[0],
        "channels": 3 if backbone else input_shape[2],
        "test_time": config.test_time and config.test_time.model_dump(),
        "backbone": backbone,
        **({} if fit == "crop" else {"fit": fit}),
    }


def _write_history(name: str, rows: dict[int, Any]) -> None:
    import pandas as pd

    with atomic_write(paths.history(name)) as part:
        pd.DataFrame.from_dict(rows, orient="index").to_csv(part, index_label="epoch")


def _splits(dataset: str, images: dict[str, int], fraction: float) -> tuple[str, str | None]:
    """The training and the validation split in the syntax of TFDS: the dataset's own, or parts of its training split.

    Args:
        dataset: a dataset's name.
        images: number of images of each of its splits.
        fraction: share of the training split that validates; 0: all images train, and no split validates.
    """
    if not fraction:
        return ("train+validation" if "validation" in images else "train"), None
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
