"""What the report tells, read from disk: the measured models and the data they were measured on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from stages import params
from stages.console import UserError

REPORTS = Path("reports")
DATA = Path("data")
MISTAKES = 12  # shown of each model
NAMES = dict.fromkeys(("class", "actual", "predicted"), str)


@dataclass(frozen=True)
class Model:
    """A model and what was measured of it. The tables are those that stages.evaluate writes."""

    name: str
    recipe: params.Model
    images_of: str  # the dataset that holds the images: the model's own, or the one its features are made of
    metrics: dict[str, Any]
    published: dict[str, Any] | None  # figure, split and source
    history: pd.DataFrame
    confusion: pd.DataFrame
    classes: pd.DataFrame
    reliability: pd.DataFrame
    mistakes: pd.DataFrame
    md5: str  # of the file of the model


@dataclass(frozen=True)
class Dataset:
    """Images of each split and class, in the order of the labels, whether they are drawn, files that were no images."""

    name: str
    counts: dict[str, dict[str, int]]
    drawn: bool
    skipped: int = 0


def models(values: params.Params) -> list[Model]:
    """All models of params.yaml, in its order.

    Raises:
        UserError: a file is missing.
    """
    published = YAML(typ="safe", pure=True).load((REPORTS / "published.yaml").read_text())
    return [_model(name, recipe, values, published.get(name)) for name, recipe in values.recipes.items()]


def datasets(values: params.Params) -> list[Dataset]:
    """All datasets of params.yaml, in its order."""
    found = []
    for name, entry in values.datasets.items():
        counts, skipped = (
            json.loads(_existing(DATA / what / f"{name}.json").read_text()) for what in ("counts", "skipped")
        )
        found.append(Dataset(name, counts, values.is_sample(entry), sum(map(len, skipped.values()))))
    return found


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """The most confident mistakes: key, true, predicted, confidence; ties in the order of the keys."""
    wrong = predictions.loc[predictions["true"] != predictions["predicted"], ["key", "true", "predicted"]]
    wrong["confidence"] = [float(np.max(predictions["probabilities"][row])) for row in wrong.index]
    return wrong.sort_values(["confidence", "key"], ascending=[False, True]).head(MISTAKES).reset_index(drop=True)


def _model(name: str, recipe: params.Model, values: params.Params, published: dict[str, Any] | None) -> Model:
    metrics = json.loads(_existing(REPORTS / "metrics" / f"{name}.json").read_text())
    predictions = pd.read_parquet(_existing(DATA / "predictions" / f"{name}.parquet"))
    features = values.features.get(recipe.dataset)
    return Model(
        name=name,
        recipe=recipe,
        images_of=features.dataset if features else recipe.dataset,
        metrics=metrics,
        published=published,
        history=_table(REPORTS / "history" / f"{name}.csv"),
        confusion=_table(REPORTS / "plots/confusion" / f"{name}.csv"),
        classes=_table(REPORTS / "plots/classes" / f"{name}.csv"),
        reliability=_table(REPORTS / "plots/reliability" / f"{name}.csv"),
        mistakes=mistakes(predictions),
        md5=predictions.attrs["model"],
    )


def _table(path: Path) -> pd.DataFrame:
    """A CSV, in which a class may have the name 1 or NA."""
    return pd.read_csv(_existing(path), dtype=NAMES, keep_default_na=False)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro`")
    return path
