"""Read the results that the report shows: the evaluated models, and the data that they were trained on."""

import json
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.config.sections import NotInPretrainingConfig
from stages.config.types import Config
from stages.evaluation import predictions
from stages.evaluation.metrics import METRICS
from stages.evaluation.predictions import Predictions
from stages.plots import _registry
from stages.reporting import measured
from stages.reporting.measured import MeasuredResult
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import open_input

MISCLASSIFIED = 12  # images shown of each model
REQUIRED = ("accuracy", "accuracy_low", "accuracy_high", "parameters", "epochs")
COUNTS = TypeAdapter(dict[str, dict[str, int]])  # images per split and class
SKIPPED = TypeAdapter(dict[str, dict[str, str]])  # by split: files that are not valid images, and why


class PublishedResult(Config):
    """An entry of reports/published.yaml: the accuracy of a model as others state it."""

    value: str
    split: str
    source: str | None
    differs: str | None = None  # in what the published training differs from the one here


@dataclass(frozen=True)
class Model:
    """A model and its results."""

    name: str
    config: ModelConfig
    image_dataset: str  # the model's own, or the one that its features are extracted from
    metrics: dict[str, Any]
    num_classes: int
    tables: dict[str, pd.DataFrame]  # the table of each plot, by its name
    misclassified: pd.DataFrame
    md5: str  # hash of the model file
    published: PublishedResult | None = None  # None on synthetic data, too: the two cannot be compared
    not_in_pretraining: NotInPretrainingConfig | None = None  # None on synthetic data, too
    measured: MeasuredResult | None = None  # on the real data, with several seeds
    outdated: bool = False  # whether other code or params than today's were measured
    synthetic: bool = False


@dataclass(frozen=True)
class Dataset:
    """Images per split and class in the order of the labels, and how many files were not valid images."""

    name: str
    counts: dict[str, dict[str, int]]
    synthetic: bool
    skipped: int = 0


def models(params: Params) -> list[Model]:
    """All models of params.yaml: those on own images first, then by dataset, then from the most accurate.

    Raises:
        UserError: a file is missing or corrupt.
    """
    published, results, outdated = published_results(), measured.read(), measured.outdated(params)
    found = [
        replace(_model(name, params, published.get(name)), measured=results.get(name), outdated=name in outdated)
        for name in params.models
    ]
    own = params.folders
    return sorted(
        found,
        key=lambda model: (model.image_dataset not in own, model.image_dataset, -model.metrics["accuracy"], model.name),
    )


def datasets(params: Params) -> list[Dataset]:
    """All datasets of params.yaml, own images first. Errors as in `models`."""
    found = []
    for name, config in sorted(params.datasets.items(), key=lambda item: (item[0] not in params.folders, item[0])):
        stage = params.preprocess_stage(name)
        with open_input(paths.counts(name), stage) as file:
            counts = COUNTS.validate_json(file.read())
            if any(list(counts[split]) != config.class_names for split in {"train", "test", *counts}):
                raise ValueError("its classes are not those of params.yaml")
        with open_input(paths.skipped(name), stage) as file:
            skipped = SKIPPED.validate_json(file.read())
        found.append(Dataset(name, counts, params.is_synthetic(config), sum(map(len, skipped.values()))))
    return found


def misclassified(predicted: Predictions) -> pd.DataFrame:
    """The most confident wrong predictions: key, true, predicted, confidence; ties in the order of the keys."""
    names = np.array(predicted.classes, object)
    columns = {
        "key": predicted.keys,
        "true": names[predicted.true],
        "predicted": names[predicted.predicted],
        "confidence": predicted.confidence,
    }
    wrong = pd.DataFrame(columns)[~predicted.correct]
    return wrong.sort_values(["confidence", "key"], ascending=[False, True]).head(MISCLASSIFIED)


def _model(name: str, params: Params, published: PublishedResult | None) -> Model:
    with open_input(paths.metrics(name), f"evaluate@{name}") as file:
        metrics = json.load(file)
        values = [metrics[key] for key in REQUIRED]
        values += [metrics[key] for key in ("validation_accuracy", *METRICS) if key in metrics]
        if not all(isinstance(value, int | float) for value in values):
            raise ValueError("some values are not numbers")
    predicted = predictions.read(name)
    image_dataset, synthetic = params.image_dataset(name), params.is_model_synthetic(name)
    return Model(
        name=name,
        config=params.resolved_models[name],
        image_dataset=image_dataset,
        metrics=metrics,
        num_classes=len(predicted.classes),
        tables={plot: plot_table(plot, module, name) for plot, module in _registry.all_plots().items()},
        misclassified=misclassified(predicted),
        md5=predicted.model_md5,
        published=None if synthetic else published,
        not_in_pretraining=None if synthetic else params.not_in_pretraining.get(image_dataset),
        synthetic=synthetic,
    )


def plot_table(plot: str, module: ModuleType, name: str) -> pd.DataFrame:
    """The table of a plot of a model: the one that `evaluate` wrote, or the history."""
    path, stage = (paths.plot(plot, name), "evaluate") if hasattr(module, "table") else (paths.history(name), "train")
    with open_input(path, f"{stage}@{name}") as file:
        # A class may be named 1 or NA
        columns = module.COLUMNS
        table = pd.read_csv(file, usecols=lambda column: column in columns, dtype=columns, keep_default_na=False)
        # A training on all images measures nothing in validation
        if missing := [column for column in columns if column not in table and not column.startswith("val_")]:
            raise ValueError(f"it has no column {missing[0]}")
        if table.empty:
            raise ValueError("it has no rows")
    return table


def published_results() -> dict[str, PublishedResult]:
    """Published results by the names of the models."""
    try:
        content = YAML(typ="safe", pure=True).load(paths.PUBLISHED.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, PublishedResult]).validate_python(content)
    except (YAMLError, ValueError) as error:
        raise UserError(
            f"{paths.PUBLISHED}: {' '.join(str(error).split())[:200]}; correct it, or restore Git's version"
        ) from None
