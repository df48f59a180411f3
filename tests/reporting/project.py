"""A small project whose models are evaluated: records, predictions, metrics and tables, without training."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages.config import params
from stages.config.models import ModelConfig
from stages.evaluation import metrics, predictions
from stages.evaluation.predictions import Predictions
from stages.plots import _registry
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow
from tests.conftest import TINY, write_params

AWKWARD = ["<script>alert(1)</script>", "NA", "1", "$x^$", "a class whose name is too long for a figure", "T-shirt/top"]
MODELS = ["mnist_dense", "cifar10_small_cnn_augmented", "imagenette_vgg16"]


def images(dataset: str, number: int) -> Iterator[tuple[str, Any, int]]:
    """Key, image and label as the format of `dataset` yields them: grey, in color, or JPEG files of varying size."""
    random = np.random.default_rng(number)
    for index in range(number):
        height, width, channels = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}.get(dataset, (120 + index, 150, 3))
        image: Any = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
        if dataset == "imagenette":
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            image = buffer.getvalue()
        yield f"{index % 10}/{'ILSVRC2012_val_' if index % 2 else 'n0_'}{index}.JPEG", image, index % 10


def make_predictions(
    true: Any, probabilities: Any, classes: list[str], keys: Any = None, md5: str = "0" * 32
) -> Predictions:
    """Predictions from labels and probabilities."""
    array = np.asarray(probabilities, np.float32)
    return Predictions(
        keys=np.array(keys if keys is not None else [f"{index}" for index in range(len(array))], object),
        true=np.asarray(true, np.int32),
        predicted=array.argmax(axis=1).astype(np.int32),
        probabilities=array,
        classes=classes,
        model_md5=md5,
        parameters=79510,
        compute_dtype="float32",
        validation_images=500,
    )


def write_model(
    name: str, config: ModelConfig, shape: tuple[int, ...], classes: list[str], backbone: Any = None
) -> None:
    """Write an untrained model of params.yaml."""
    import keras

    from stages.prediction.saved_model import save
    from stages.training.network import build_model

    keras.utils.set_random_seed(0)
    model = build_model(config, shape, np.dtype("float16" if backbone else "uint8"), len(classes))
    signature = {"classes": classes, "image_size": None if backbone else shape[0], "backbone": backbone}
    save(model, paths.model(name), signature)


def select(predicted: Predictions, chosen: np.ndarray) -> Predictions:
    """The predictions for some images; `chosen` is a mask or an array of indices."""
    names = ("keys", "true", "predicted", "probabilities")
    return replace(predicted, **{name: getattr(predicted, name)[chosen] for name in names})


def write_evaluation(name: str, predicted: Predictions, pattern: str | None = None) -> None:
    """Write predictions, history, metrics and tables of a model to the working directory."""
    predictions.write(paths.predictions(name), predicted)
    columns = ["accuracy", "loss", "val_accuracy", "val_loss"]
    history = pd.DataFrame(np.random.default_rng(0).random((2, 4)), [1, 2], columns)
    values = {
        **metrics.compute(predicted),
        **(metrics.not_in_pretraining(predicted, pattern) if pattern else {}),
        "validation_accuracy": 0.5,
        "parameters": 79510,
        "epochs": 2,
        "compute_dtype": "float32",
    }
    tables = {paths.plot(plot, name): table for plot, table in _registry.tables(predicted).items()}
    for path in (paths.metrics(name), paths.history(name), *tables):
        path.parent.mkdir(parents=True, exist_ok=True)
    history.to_csv(paths.history(name), index_label="epoch")
    paths.metrics(name).write_text(json.dumps(values), encoding="utf-8")
    for path, table in tables.items():
        table.to_csv(path, index=False)


def write_project(folder: Path) -> None:
    """Write everything that `report` reads to `folder`, the working directory; only MNIST counts as real data."""
    from stages.data import writer

    def change(values: Any) -> None:
        values["models"] = {name: values["models"][name] for name in MODELS}
        del values["datasets"]["fashion_mnist"]
        values["datasets"]["mnist"]["classes"][: len(AWKWARD)] = AWKWARD
        values["datasets"]["mnist"]["synthetic"] = None

    write_params(folder, change)
    published = {"value": "78–80 %", "split": "validation", "source": "https://example.com/?a=1&b=2"}
    paths.PUBLISHED.parent.mkdir(parents=True)
    paths.PUBLISHED.write_text(json.dumps(dict.fromkeys(MODELS, published)), encoding="utf-8")
    config = params.load()
    import_tensorflow(config.threads)  # as `report` does; it cannot be changed after the first operation
    for name, dataset in config.datasets.items():
        examples = ((split, *image) for split in TINY for image in images(name, TINY[split]))
        writer.write(name, dataset.class_names, list(TINY), examples)
        counts = {split: dict.fromkeys(dataset.class_names, TINY[split] // 10) for split in TINY}
        skipped = {"train": {"n01/note.txt": "is not a JPEG file"} if name == "imagenette" else {}, "test": {}}
        for path, content in ((paths.counts(name), counts), (paths.skipped(name), skipped)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    for seed, (name, model) in enumerate(config.models.items()):
        dataset_name = config.image_dataset(name)
        keys, _, labels = zip(*images(dataset_name, TINY["test"]), strict=True)
        probabilities = np.random.default_rng(seed).dirichlet(np.ones(10), len(keys))
        classes = config.datasets[dataset_name].class_names
        predicted = make_predictions(labels, probabilities, classes, keys, f"{seed:032x}")
        if name == "cifar10_small_cnn_augmented":  # the only one with test-time augmentation
            predicted = replace(predicted, predicted_without_tta=np.zeros(len(keys), np.int32))
        write_evaluation(name, predicted, "ILSVRC2012_val_*" if model.dataset in config.features else None)
        if model.dataset in config.features:
            random, backbone = np.random.default_rng(0), {"name": "vgg16", "image_size": 224}
            features = [("test", key, random.random((7, 7, 8)).astype(np.float16), 0) for key in keys]
            writer.write(model.dataset, classes, ["test"], features)
            paths.backbone(model.dataset).write_text(json.dumps(backbone), encoding="utf-8")
            write_model(name, model, (7, 7, 8), classes, backbone)
        else:
            write_model(name, model, {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[dataset_name], classes)
