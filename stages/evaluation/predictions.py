"""Predictions of a model on its test split: their data type, and the only writer and reader of data/predictions."""

import hashlib
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

GROUP_ROWS, GROUP_VALUES = 2**20, 2**26  # of a row group: reading needs memory for one group besides the result


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
    validation_images: int  # of the split that the history's validation accuracy is measured on

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, (images,) bool."""
        return np.equal(self.true, self.predicted)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each image, (images,) float64."""
        return self.probabilities.max(axis=1).astype(float)


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet: key, true, predicted, probabilities, and the facts as the table's attributes."""
    table = pd.DataFrame(
        {
            "key": predictions.keys,
            "true": pd.Categorical.from_codes(predictions.true, predictions.classes),
            "predicted": pd.Categorical.from_codes(predictions.predicted, predictions.classes),
            "probabilities": list(predictions.probabilities),
        }
    )
    table.attrs["parameters"] = predictions.parameters
    table.attrs["model"] = predictions.model_md5
    table.attrs["compute_dtype"] = predictions.compute_dtype
    table.attrs["validation_images"] = predictions.validation_images
    with atomic_write(path) as part:
        table.to_parquet(
            part,
            index=False,
            row_group_size=max(1, min(GROUP_ROWS, GROUP_VALUES // len(predictions.classes))),
            dictionary_pagesize_limit=2**30,  # a class without images keeps its place, however long the names are
            write_page_checksum=True,  # without it, most flipped bits go unnoticed
        )


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
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    facts = json.loads(parquet.schema_arrow.metadata[b"PANDAS_ATTRS"])
    groups = [_group(parquet.read_row_group(number)) for number in range(parquet.num_row_groups)]
    keys, true, predicted, probabilities, classes = zip(*groups, strict=True)
    if any(names != classes[0] for names in classes):
        raise ValueError("its row groups have different classes")
    return Predictions(
        keys=np.concatenate(keys),
        true=np.concatenate(true),
        predicted=np.concatenate(predicted),
        probabilities=probabilities[0] if len(groups) == 1 else np.concatenate(probabilities),
        classes=classes[0],
        model_md5=facts["model"],
        parameters=facts["parameters"],
        compute_dtype=facts["compute_dtype"],
        validation_images=facts["validation_images"],
    )


def md5(path: Path) -> str:
    """The MD5 of a file, as DVC computes it."""
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _group(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Keys, labels, predicted labels, probabilities and class names of a row group."""
    true, predicted = (table[column].combine_chunks() for column in ("true", "predicted"))
    true, predicted = (array.chunk(0) if isinstance(array, pa.ChunkedArray) else array for array in (true, predicted))
    classes = true.dictionary.to_pylist()
    probabilities = np.concatenate([chunk.flatten().to_numpy() for chunk in table["probabilities"].chunks])
    if predicted.dictionary.to_pylist() != classes or len(probabilities) != len(table) * len(classes):
        raise ValueError("its columns do not fit together")
    labels = (np.asarray(array.indices).astype(np.int32) for array in (true, predicted))
    return (
        table["key"].to_numpy(zero_copy_only=False),
        *labels,
        probabilities.reshape(len(table), len(classes)),
        classes,
    )
