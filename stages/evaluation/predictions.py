"""Predictions of a model on its test split: their data type, and the only writer and reader of data/predictions."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

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
    columns = {
        "key": predictions.keys,
        "true": pd.Categorical.from_codes(predictions.true, predictions.classes),
        "predicted": pd.Categorical.from_codes(predictions.predicted, predictions.classes),
        "probabilities": list(predictions.probabilities),
    }
    if predictions.predicted_without_tta is not None:
        columns[TTA_COLUMN] = pd.Categorical.from_codes(predictions.predicted_without_tta, predictions.classes)
    table = pd.DataFrame(columns)
    table.attrs = {
        "parameters": predictions.parameters,
        "model": predictions.model_md5,
        "compute_dtype": predictions.compute_dtype,
        "validation_images": predictions.validation_images,
        "temperature": predictions.temperature,
        "not_sure_below": predictions.not_sure_below,
    }
    many = len(predictions.classes) > MANY_CLASSES
    with atomic_write(path) as file:
        table.to_parquet(
            file,
            index=False,
            row_group_size=max(1, min(GROUP_ROWS, GROUP_VALUES // len(predictions.classes))),
            # A dictionary of a billion different probabilities takes minutes and saves nothing
            use_dictionary=[name for name in columns if name != "probabilities"] if many else True,
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
    table = pd.read_parquet(file, engine="pyarrow", page_checksum_verification=True)
    labels = {column: table[column].cat for column in ("true", "predicted", TTA_COLUMN) if column in table}
    classes, *others = (list(label.categories) for label in labels.values())
    probabilities = np.stack(table["probabilities"])
    if any(other != classes for other in others) or probabilities.shape[1] != len(classes):
        raise ValueError("its columns do not fit together")
    facts = table.attrs
    return Predictions(
        keys=table["key"].to_numpy(),
        **{column: label.codes.to_numpy(np.int32) for column, label in labels.items()},
        probabilities=probabilities,
        classes=classes,
        model_md5=facts["model"],
        parameters=facts["parameters"],
        compute_dtype=facts["compute_dtype"],
        validation_images=facts["validation_images"],
        temperature=facts.get("temperature", 1.0),
        not_sure_below=facts.get("not_sure_below"),
    )
