"""Predictions of a model on its test split: their data type, and the only writer and reader of data/predictions."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.runtime import paths
from stages.runtime.files import atomic_write, open_input

TTA_COLUMN = "predicted_without_tta"
GROUP_ROWS, GROUP_VALUES = 2**20, 2**24  # largest row group
MANY_CLASSES = 1000


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for each test image, and facts about the model."""

    keys: np.ndarray  # (images,) object: str
    true: np.ndarray  # (images,) int32: labels
    predicted: np.ndarray  # (images,) int32: labels
    probabilities: np.ndarray  # (images, classes) float32
    classes: list[str]  # in the order of the labels
    model_md5: str
    parameters: int
    compute_dtype: str
    validation_images: int  # number of images behind the history's validation accuracy
    predicted_without_tta: np.ndarray | None = None  # (images,) int32: labels; of a model with test-time augmentation
    temperature: float = 1.0  # number by which the logarithms of the probabilities have been divided
    not_sure_below: float | None = None  # confidence; None: the model always answers

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, (images,) bool."""
        return np.equal(self.true, self.predicted)

    @property
    def plain(self) -> np.ndarray:
        """The labels that are predicted for the images as they are, without test-time augmentation, (images,) int32."""
        return self.predicted if self.predicted_without_tta is None else self.predicted_without_tta

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each image, (images,) float64."""
        return self.probabilities.max(axis=1).astype(float)

    def confidence_before_temperature(self) -> np.ndarray:
        """The highest probability of each image as the network computed it, (images,) float64."""
        powers = self.probabilities.astype(float) ** self.temperature
        return powers.max(axis=1) / powers.sum(axis=1)


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet: key, true, predicted, probabilities, and the facts as the table's attributes.

    Of a model with test-time augmentation (TTA), predicted_without_tta is one more column.
    """
    table = _table(predictions)
    many = len(predictions.classes) > MANY_CLASSES
    with atomic_write(path) as file:
        pq.write_table(
            table,
            file,
            max(1, min(GROUP_ROWS, GROUP_VALUES // len(predictions.classes))),
            # A dictionary of a billion different probabilities takes minutes and saves nothing
            use_dictionary=[name for name in table.column_names if name != "probabilities"] if many else True,
            dictionary_pagesize_limit=2**30,  # a class without images keeps its place, however long the names are
            write_page_checksum=True,  # without it, most flipped bits go unnoticed
        )


def _table(predictions: Predictions) -> pa.Table:
    table = pd.DataFrame(
        {
            "key": predictions.keys,
            "true": pd.Categorical.from_codes(predictions.true, predictions.classes),
            "predicted": pd.Categorical.from_codes(predictions.predicted, predictions.classes),
            "probabilities": list(predictions.probabilities),
        }
    )
    if predictions.predicted_without_tta is not None:
        table[TTA_COLUMN] = pd.Categorical.from_codes(predictions.predicted_without_tta, predictions.classes)
    table.attrs = {
        "parameters": predictions.parameters,
        "model": predictions.model_md5,
        "compute_dtype": predictions.compute_dtype,
        "validation_images": predictions.validation_images,
        "temperature": predictions.temperature,
        "not_sure_below": predictions.not_sure_below,
    }
    found = pa.Table.from_pandas(table, preserve_index=False)
    # As DataFrame.to_parquet does, so that pandas finds the attributes
    return found.replace_schema_metadata({**found.schema.metadata, "PANDAS_ATTRS": json.dumps(table.attrs)})


def read(name: str) -> Predictions:
    """Read the predictions of a model.

    Raises:
        UserError: the file is missing or corrupt.
    """
    with open_input(paths.predictions(name), f"train@{name}") as file:
        return parse(file)


def parse(file: BinaryIO) -> Predictions:
    """Read predictions from an open file, such as one of another revision.

    Raises:
        Exception: one of `stages.runtime.files.PARSE_ERRORS` if the content is corrupt.
    """
    table = pq.read_table(file, page_checksum_verification=True).unify_dictionaries()
    facts = json.loads(table.schema.metadata[b"PANDAS_ATTRS"])
    labeled = ("true", "predicted", *[TTA_COLUMN] * (TTA_COLUMN in table.column_names))
    labels = {column: table[column].combine_chunks() for column in labeled}
    classes, *others = (found.dictionary.to_pylist() for found in labels.values())
    probabilities = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if any(other != classes for other in others) or len(probabilities) != len(table) * len(classes):
        raise ValueError("its columns do not fit together")
    return Predictions(
        keys=table["key"].to_numpy(),
        **{column: found.indices.to_numpy().astype(np.int32) for column, found in labels.items()},
        probabilities=probabilities.reshape(len(table), len(classes)),
        classes=classes,
        model_md5=facts["model"],
        parameters=facts["parameters"],
        compute_dtype=facts["compute_dtype"],
        validation_images=facts["validation_images"],
        temperature=facts.get("temperature", 1.0),
        not_sure_below=facts.get("not_sure_below"),
    )
