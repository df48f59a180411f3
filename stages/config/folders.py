"""The section `folders` of params.yaml: datasets of your own images, which lie where you keep them."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, ValidationInfo

from stages.config.datasets import ClassNames, DatasetConfig
from stages.config.types import Config, Fraction
from stages.runtime.formulas import is_formula

FORMAT = "folder"  # of these datasets; no module of stages/data/formats has this name


def _check_formulas(classes: ClassNames) -> ClassNames:
    """Reject class names that would be formulas in the tables of the report."""
    for name in classes.values() if isinstance(classes, dict) else classes:
        if is_formula(name):
            raise ValueError(
                f"the class name {name!r} starts like a formula of a spreadsheet; give another one: classes may be a "
                "mapping of folders or labels to names"
            )
    return classes


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it should be a regular expression: {error}") from None
    return pattern


def _check_sum(fraction: float | None, info: ValidationInfo) -> float | None:
    if fraction and (test := info.data.get("test_fraction")) and fraction + test >= 1:
        raise ValueError(f"with test_fraction {test} it leaves no images to train with; choose a smaller one")
    return fraction


Text = Annotated[str, StringConstraints(min_length=1)]
Pattern = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_pattern)]


class TableConfig(Config):
    """The columns of a table that lists the images."""

    file: Text | None = None  # a CSV or Parquet file in the folder `path`; None: `path` itself is the table
    image: Text  # paths relative to the table, or the files themselves
    label: Text
    split: Text | None = None
    group: Text | None = None


class FolderConfig(Config):
    """An entry of `folders`: a folder with a folder for each class, or a table."""

    path: Text  # relative to the root of the repository, or absolute
    classes: Annotated[ClassNames, AfterValidator(_check_formulas)]
    table: TableConfig | None = None
    test_fraction: Fraction | None = None  # None: the source has splits of its own
    validation_fraction: Annotated[Fraction | None, AfterValidator(_check_sum)] = None  # None: `train` cuts that split
    skip_invalid_images: bool = False  # or of all datasets, at the top of params.yaml
    fit: Literal["crop", "pad", "stretch"] | None = None  # to the size of a model, which is often a square; None: crop
    group: Pattern | None = None  # searched in the name of a file; images with the same match stay in one split

    @property
    def source(self) -> Path:
        """The folder or table, which is a dep of the stage."""
        return Path(self.path)

    def as_dataset(self) -> DatasetConfig:
        """The same as an entry of `datasets`: one that has no files to download."""
        return DatasetConfig.model_construct(format=FORMAT, classes=self.classes, files={}, synthetic=None)
