"""The sections `datasets`, `weights` and `folders` of params.yaml: archives and their mirrors, and your own images."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, model_serializer, model_validator

from stages.config.types import Config, FileName, Fraction, Name, matching
from stages.runtime.errors import JOINERS

FORMAT = "folder"  # of these datasets; no module of stages/data/formats has this name
Classes = TypeVar("Classes", list[str], dict[str, str])


def _check_class_names(classes: Classes) -> Classes:
    """Reject class names that a table could not tell apart or that a file of one name per line would change."""
    names = [name.translate(JOINERS) for name in (classes.values() if isinstance(classes, dict) else classes)]
    if len(set(names)) < len(names) or not all(name.isprintable() and name == name.strip() != "" for name in names):
        raise ValueError("class names should be distinct and printable, without spaces around them")
    return classes


ClassNames = (
    Annotated[list[str], Field(min_length=2), AfterValidator(_check_class_names)]
    | Annotated[dict[str, str], Field(min_length=2), AfterValidator(_check_class_names)]
)


class MirrorConfig(Config):
    """One place to download a file from, and the hash that the file has there: URL#sha256=DIGITS, or #md5=DIGITS."""

    url: Annotated[str, matching(r"(https?|file)://\S+", "it should begin with https://, http:// or file://")]
    hash: Annotated[
        str,
        matching(
            r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}",
            "the URL should end in #sha256= and the 64 digits that `sha256sum FILE` prints, or #md5= and 32 digits",
        ),
    ]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        url, _, digest = value.partition("#")
        return {"url": url, "hash": digest.replace("=", ":", 1) or value}

    @model_serializer
    def _as_text(self) -> str:
        return f"{self.url}#{self.hash.replace(':', '=')}"


Files = Annotated[dict[FileName, Annotated[list[MirrorConfig], Field(min_length=1)]], Field(min_length=1)]


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a text as a formula. A number, such as the label -1 or +1, is none."""
    return text.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", text)


def _check_formulas(classes: ClassNames) -> ClassNames:
    """Reject class names that would be formulas in the tables of the report."""
    for name in classes.values() if isinstance(classes, dict) else classes:
        if is_formula(name):
            raise ValueError(
                f"the class name {name!r} starts like a formula of a spreadsheet; give another one: classes may be a "
                "mapping of folders or labels to names"
            )
    return classes


class SyntheticConfig(Config):
    """Number of images to generate for each split."""

    train: Annotated[int, Field(ge=20, le=1_000_000)]
    test: Annotated[int, Field(ge=10, le=1_000_000)]


class DatasetConfig(Config):
    """An entry of `datasets`: archives in a known format."""

    format: Name
    classes: Annotated[ClassNames, AfterValidator(_check_formulas)]
    files: Files
    synthetic: SyntheticConfig | None = None  # None: always downloaded

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the labels."""
        return list(self.classes.values()) if isinstance(self.classes, dict) else self.classes


class WeightsConfig(Config):
    """An entry of `weights`: the pretrained weights of a backbone."""

    files: Files = Field(default_factory=dict)  # none: those of the network of keras.applications with the entry's name
    synthetic: bool = False  # False: always downloaded


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

    path: Text  # of the folder or table, relative to the root of the repository, or absolute
    classes: Annotated[ClassNames, AfterValidator(_check_formulas)]
    table: TableConfig | None = None
    test_fraction: Fraction | None = None  # None: the source has splits of its own
    validation_fraction: Annotated[Fraction | None, AfterValidator(_check_sum)] = None  # None: `train` cuts that split
    skip_invalid_images: bool = False  # or of all datasets, at the top of params.yaml
    fit: Literal["crop", "pad", "stretch"] | None = None  # to the size of a model, which is often a square; None: crop
    group: Pattern | None = None  # searched in the name of a file; images with the same match stay in one split

    def as_dataset(self) -> DatasetConfig:
        """The same as an entry of `datasets`: one that has no files to download."""
        return DatasetConfig.model_construct(format=FORMAT, classes=self.classes, files={}, synthetic=None)
