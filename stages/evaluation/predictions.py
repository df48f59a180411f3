"""Predictions of a model on its test split: their data type, and the only writer and reader of data/predictions.

A file with several row groups is written and read a part at a time: the probabilities of a million images of a thousand
classes would take gigabytes.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.runtime import paths
from stages.runtime.files import atomic_write, open_input

TTA_COLUMN = "predicted_without_tta"
GROUP_ROWS, GROUP_VALUES = 2**20, 2**24  # of a row group
BLOCK = 2**22  # probabilities that are computed with at once
MANY_CLASSES = 1000


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for each test image, and facts about the model."""

    keys: np.ndarray  # (images,) object: str
    true: np.ndarray  # (images,) int32: labels
    predicted: np.ndarray  # (images,) int32: labels
    probabilities: Any  # (images, classes) float32: an array, or `StoredProbabilities`; `blocks` yields either
    classes: list[str]  # in the order of the labels
    model_md5: str
    parameters: int
    compute_dtype: str
    validation_images: int  # of the split that the history's validation accuracy is measured on
    predicted_without_tta: np.ndarray | None = None  # (images,) int32: labels; of a model with test-time augmentation
    temperature: float = 1.0  # that the probabilities have been divided by, as logarithms
    not_sure_below: float | None = None  # confidence; None: the model always answers

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, (images,) bool."""
        return np.equal(self.true, self.predicted)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each image, (images,) float64."""
        return np.concatenate([block.max(axis=1) for _, block in self.blocks()]).astype(float)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Labels and probabilities of some images at a time: what is computed from them takes little memory."""
        size = max(1, BLOCK // len(self.classes))
        for start in range(0, len(self.true), size):
            yield self.true[start : start + size], self.probabilities[start : start + size]


class StoredProbabilities:
    """The probabilities in a file, (images, classes) float32; a slice is read when it is asked for."""

    def __init__(self, name: str, groups: list[int], num_classes: int) -> None:
        """Take the model's name, and the number of images in each row group of its predictions."""
        self._name = name
        self._stops = np.cumsum(groups)
        self._group, self._values = -1, np.empty(0)
        self.shape = int(self._stops[-1]), num_classes

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read the probabilities of the images [start:stop].

        Raises:
            UserError: the file is missing or corrupt.
        """
        start, stop, _ = rows.indices(self.shape[0])
        found = [np.empty((0, self.shape[1]), np.float32)]
        while start < stop:
            group = int(np.searchsorted(self._stops, start, "right"))
            values, end = self._read(group), self._stops[group]
            first = end - len(values)
            found.append(values[start - first : min(stop, end) - first])
            start = end
        return np.concatenate(found)

    def _read(self, group: int) -> np.ndarray:
        if group != self._group:
            with open_input(paths.predictions(self._name), f"train@{self._name}") as file:
                found = _open(file).read_row_group(group, ["probabilities"])["probabilities"]
                self._group, self._values = group, _rows(found, self.shape[1])
        return self._values


def write(path: Path, predictions: Predictions | Iterable[Predictions]) -> None:
    """Write predictions as Parquet: key, true, predicted, probabilities, and the facts as the table's attributes.

    Of a model with test-time augmentation (TTA), predicted_without_tta is one more column.

    Args:
        path: of the file.
        predictions: of all images, or of one part of them after the other.
    """
    parts = iter([predictions] if isinstance(predictions, Predictions) else predictions)
    first = next(parts)
    size = len(first.classes)
    rows = max(1, min(GROUP_ROWS, GROUP_VALUES // size))
    table = _table(first)
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(
            file,
            table.schema,
            # A dictionary of a billion different probabilities takes minutes and saves nothing
            use_dictionary=size <= MANY_CLASSES or [name for name in table.column_names if name != "probabilities"],
            dictionary_pagesize_limit=2**30,  # a class without images keeps its place, however long the names are
            write_page_checksum=True,  # without it, most flipped bits go unnoticed
        ) as writer,
    ):
        for part in parts:
            while len(table) >= rows:
                writer.write_table(table[:rows].combine_chunks(), rows)
                table = table[rows:]
            table = pa.concat_tables([table, _table(part)])
        writer.write_table(table.combine_chunks(), rows)


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
    """Read the predictions of a model; the probabilities only when they are asked for, if they are many.

    Raises:
        UserError: the file is missing or corrupt.
    """
    with open_input(paths.predictions(name), f"train@{name}") as file:
        return _parse(_open(file), name)


def parse(file: BinaryIO) -> Predictions:
    """Read predictions from an open file, such as one of another revision.

    Raises:
        Exception: one of `stages.runtime.files.PARSE_ERRORS` if the content is corrupt.
    """
    return _parse(_open(file), None)


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(file, page_checksum_verification=True)


def _parse(file: pq.ParquetFile, name: str | None) -> Predictions:
    """Read all but, of a model with a name and several row groups, the probabilities."""
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    stored = name is not None and len(groups) > 1
    columns = [column for column in file.schema_arrow.names if not (stored and column == "probabilities")]
    table = file.read(columns).unify_dictionaries()
    facts = json.loads(table.schema.metadata[b"PANDAS_ATTRS"])
    labeled = ("true", "predicted", *[TTA_COLUMN] * (TTA_COLUMN in table.column_names))
    chunks = {column: table[column].chunks for column in labeled}
    classes, *others = (found[0].dictionary.to_pylist() for found in chunks.values())
    if any(other != classes for other in others):
        raise ValueError("its columns do not fit together")
    labels = {
        label: np.concatenate([chunk.indices for chunk in found]).astype(np.int32) for label, found in chunks.items()
    }
    return Predictions(
        keys=table["key"].to_numpy(),
        **labels,
        probabilities=StoredProbabilities(name, groups, len(classes))
        if stored and name is not None
        else _rows(table["probabilities"], len(classes)),
        classes=classes,
        model_md5=facts["model"],
        parameters=facts["parameters"],
        compute_dtype=facts["compute_dtype"],
        validation_images=facts["validation_images"],
        temperature=facts.get("temperature", 1.0),
        not_sure_below=facts.get("not_sure_below"),
    )


def _rows(column: pa.ChunkedArray, num_classes: int) -> np.ndarray:
    """The probabilities of a column, (images, classes) float32."""
    rows = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]  # pandas wrote NaN as null
    probabilities = rows[0] if len(rows) == 1 else np.concatenate(rows)
    if len(probabilities) != len(column) * num_classes:
        raise ValueError("its columns do not fit together")
    return probabilities.reshape(len(column), num_classes)
