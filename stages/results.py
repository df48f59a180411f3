"""What the report tells, read from disk: the measured models and the data they were measured on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages import params
from stages.console import UserError
from stages.files import reading

REPORTS = Path("reports")
DATA = Path("data")
MISTAKES = 12  # shown of each model
MEASURED = (
    *("images", "accuracy", "accuracy_low", "accuracy_high", "loss", "macro_f1", "top3_accuracy", "ece"),
    *("validation_accuracy", "parameters", "epochs"),
)
# Of each table. A class may have the name 1 or NA.
COLUMNS: dict[str, dict[str, type]] = {
    "history": {"epoch": int, **dict.fromkeys(("accuracy", "loss", "val_accuracy", "val_loss"), float)},
    "confusion": {"actual": str, "predicted": str, "count": int, "share": float},
    "classes": {"class": str, "precision": float, "recall": float, "f1": float, "images": int},
    "reliability": {**dict.fromkeys(("low", "high", "confidence", "accuracy"), float), "images": int},
}
COUNTS = TypeAdapter(dict[str, dict[str, int]])  # images of each split and class
SKIPPED = TypeAdapter(dict[str, dict[str, str]])  # of each split: files that are no images, and why


class Claim(params.Section):
    """An entry of reports/published.yaml."""

    figure: str
    split: str
    source: str | None


@dataclass(frozen=True)
class Model:
    """A model and what was measured of it. The tables are those that stages.evaluate writes."""

    name: str
    recipe: params.Model
    images_of: str  # the dataset that holds the images: the model's own, or the one its features are made of
    metrics: dict[str, Any]
    published: Claim | None
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
        UserError: a file is missing or damaged.
    """
    published = _published(REPORTS / "published.yaml")
    return [_model(name, recipe, values, published.get(name)) for name, recipe in values.recipes.items()]


def datasets(values: params.Params) -> list[Dataset]:
    """All datasets of params.yaml, in its order."""
    found = []
    for name, entry in values.datasets.items():
        stage = f"preprocess@{name}"
        with reading(DATA / "counts" / f"{name}.json", stage) as file:
            counts = COUNTS.validate_json(file.read())
            if any(list(counts[split]) != entry.class_names for split in ("train", "test")):
                raise ValueError("its classes are not those of params.yaml")
        with reading(DATA / "skipped" / f"{name}.json", stage) as file:
            skipped = SKIPPED.validate_json(file.read())
        found.append(Dataset(name, counts, values.is_sample(entry), sum(map(len, skipped.values()))))
    return found


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """The most confident mistakes: key, true, predicted, confidence; ties in the order of the keys."""
    wrong = predictions.loc[predictions["true"] != predictions["predicted"], ["key", "true", "predicted"]]
    wrong["confidence"] = [float(np.max(predictions["probabilities"][row])) for row in wrong.index]
    return wrong.sort_values(["confidence", "key"], ascending=[False, True]).head(MISTAKES).reset_index(drop=True)


def _model(name: str, recipe: params.Model, values: params.Params, published: Claim | None) -> Model:
    with reading(REPORTS / "metrics" / f"{name}.json", f"evaluate@{name}") as file:
        metrics = json.load(file)
        if not all(isinstance(metrics[key], int | float) for key in MEASURED):
            raise ValueError("not all of it are numbers")
    with reading(DATA / "predictions" / f"{name}.parquet", f"train@{name}") as file:
        predictions = pd.read_parquet(file, page_checksum_verification=True)
        worst, md5 = mistakes(predictions), predictions.attrs["model"]
    features = values.features.get(recipe.dataset)
    return Model(
        name=name,
        recipe=recipe,
        images_of=features.dataset if features else recipe.dataset,
        metrics=metrics,
        published=published,
        history=_table("history", REPORTS / "history" / f"{name}.csv", f"train@{name}"),
        confusion=_table("confusion", REPORTS / "plots/confusion" / f"{name}.csv", f"evaluate@{name}"),
        classes=_table("classes", REPORTS / "plots/classes" / f"{name}.csv", f"evaluate@{name}"),
        reliability=_table("reliability", REPORTS / "plots/reliability" / f"{name}.csv", f"evaluate@{name}"),
        mistakes=worst,
        md5=md5,
    )


def _table(kind: str, path: Path, stage: str) -> pd.DataFrame:
    """A CSV that `stage` writes."""
    columns = COLUMNS[kind]
    with reading(path, stage) as file:
        table = pd.read_csv(file, usecols=list(columns), dtype=columns, keep_default_na=False)
        if table.empty or (kind == "confusion" and len(table) != table["actual"].nunique() ** 2):
            raise ValueError(f"it has {len(table)} rows")
    return table


def _published(path: Path) -> dict[str, Claim]:
    """What others say of the models, by their names."""
    try:
        return TypeAdapter(dict[str, Claim]).validate_python(YAML(typ="safe", pure=True).load(path.read_text()))
    except (YAMLError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}; correct it, or take the one of Git") from None
