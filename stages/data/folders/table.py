"""Images that a table lists: CSV or Parquet, with paths of files beside it, or with the files in it."""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stages.config.datasets import TableConfig, is_formula
from stages.data.folders.layout import TRAIN, Entry, check_case, split_of
from stages.data.folders.listing import check_inside
from stages.runtime.errors import UserError
from stages.runtime.files import PARSE_ERRORS

TABLES = (".csv", ".parquet")
BATCH = 64  # rows of Parquet that are read at once, because a row may contain an image
MISSING = {"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"}  # how programs write a missing value
ONE_CLASS = "every image has one class here, named in one column"

Row = dict[str, Any]


def entries(path: Path, table: TableConfig) -> dict[str, Entry]:
    """The images that the table `path` lists, by their names: paths as they stand there, or hashes of their contents.

    Raises:
        UserError: the table is corrupt, or a row has no label or several, an unknown split, or an image that is listed
            twice; or labels differ only in their case.
    """
    class_names = _class_names(path, table.label)
    images: dict[str, Entry] = {}
    for row, name, _, values in _images(path, table, table.label, table.split, table.group):
        label = _label(path, row, values[table.label], class_names)
        if name in images:
            other = images[name].class_name
            what = "" if label == other else f", with the labels {other!r} and {label!r}, but {ONE_CLASS}"
            raise UserError(f"{path}: row {row}: {name!r} is listed twice{what}; remove one")
        cell = values[table.split] if table.split else TRAIN
        split, rest = split_of(str(cell)) or (None, "")
        if not split or rest:
            raise UserError(f"{path}: row {row}: {table.split} is {cell!r}; use train, validation or test")
        images[name] = Entry(
            name,
            label,
            split if table.split else None,
            name,
            _text(values[table.group]) or None if table.group else None,
        )
    labels = {entry.class_name for entry in images.values()}
    missing = {""} if labels == {"-1", "1"} else {"", "-1"}  # Hugging Face's datasets have -1 in splits without labels
    if rows := [row for row, entry in enumerate(images.values(), 1) if entry.class_name in missing]:
        raise UserError(
            f"{path}: row {rows[0]}: it has no {table.label!r}, or one that stands for a missing value, such as -1 or "
            f"None ({len(rows):,} rows); add one, remove the rows, or give that class another name"
        )
    _check_one_class(path, labels)
    check_case(path, labels)
    return images


def contents(path: Path, table: TableConfig) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each image and a function that reads it, in the order of the table.

    Raises:
        UserError: the table is corrupt, or a file is missing, or its path leads out of the table's folder.
    """
    for row, name, value, _ in _images(path, table):
        if isinstance(value, bytes):
            yield name, partial(bytes, value)
            continue
        file = path.parent / name
        if not file.is_file():  # copied from a Mac, it may have the decomposed letters that the table has
            file = path.parent / _with_slashes(value)
        check_inside(file, path.parent, name)
        if not file.is_file():
            raise UserError(f"{path}: row {row}: there is no file {name!r} beside the table; correct its path")
        yield name, file.read_bytes


def columns(path: Path) -> list[str]:
    """The names of a table's columns, without spaces around them."""
    if path.suffix.lower() == ".parquet":
        return [name.strip() for name in _schema(path).names]
    return next((values for _, values in _csv_lines(path)), [])


def has_paths(path: Path, column: str) -> bool:
    """Whether a column has paths; else it has image files."""
    value = next((row[column] for row in _rows(path, [column]) if row[column]), "")
    return isinstance(_file(value), str)


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the values of each row of a CSV table.

    Raises:
        UserError: it is corrupt or not UTF-8, or a row has more values than there are columns.
    """
    lines = _csv_lines(path)
    header = next(lines, (0, []))[1]
    for number, (line, values) in enumerate(lines, 1):
        if any(values[len(header) :]):
            raise UserError(
                f"{path}: row {number}: it has {len(values)} values for {len(header)} columns; put quotes around a "
                "value that contains the delimiter"
            )
        yield line, dict(zip(header, values + [""] * len(header), strict=False))


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the values of the header and of each row that is not blank."""
    with _named(path), path.open(encoding="utf-8-sig", newline="") as file:
        start = file.readline()
        if "\0" in start:
            raise UnicodeError  # UTF-16 without a mark
        file.seek(0)
        lines = csv.reader(file, delimiter=max(",;\t", key=start.count), strict=True)
        yield lines.line_num, [name.strip() for name in next(lines, [])]
        yield from ((lines.line_num, values) for values in lines if values)


def _rows(path: Path, wanted: Sequence[str | None]) -> Iterator[Row]:
    """Yield the rows; of Parquet only with the wanted columns."""
    names, known = [name for name in wanted if name], columns(path)
    for name in names:
        if name not in known:
            raise UserError(f"{path}: it has no column {name!r}; its columns are {', '.join(known)[:300]}")
        if known.count(name) > 1:
            raise UserError(f"{path}: it has {known.count(name)} columns {name!r}; rename or remove the others")
    if path.suffix.lower() != ".parquet":
        yield from (row for _, row in csv_rows(path))
        return
    import pyarrow.parquet

    with _named(path), pyarrow.parquet.ParquetFile(path) as file:
        stored = {name: file.schema_arrow.names[known.index(name)] for name in names}
        for batch in file.iter_batches(BATCH, columns=list(stored.values())):
            for row in batch.to_pylist():
                yield {name: row[column] for name, column in stored.items()}


def _schema(path: Path) -> Any:
    import pyarrow.parquet

    with _named(path):
        return pyarrow.parquet.read_schema(path)


def _images(path: Path, table: TableConfig, *more: str | None) -> Iterator[tuple[int, str, str | bytes, Row]]:
    """Yield the row, the name, and the path or the content of each image, and its values of further columns."""
    copies = Counter[str]()
    for row, values in enumerate(_rows(path, [table.image, *more]), 1):
        value = _file(values[table.image])
        if isinstance(value, str) and value.strip().lower() not in MISSING:
            if not table.file:
                raise UserError(
                    f"{path}: row {row}: it has the path {value[:200]!r} instead of an image; give all rows images, or "
                    "all paths"
                )
            yield row, _relative(path, value, row), value, values
        elif isinstance(value, bytes) and value:
            # Rows may be added anywhere without another split for this one
            name = hashlib.sha256(value).hexdigest()[:20]
            copies[name] += 1
            yield row, name if copies[name] == 1 else f"{name}-{copies[name]}", value, values
        else:
            what = "no image" if value is None or isinstance(value, str | bytes) else "no image file, but numbers"
            raise UserError(
                f"{path}: row {row}: it has {what} in {table.image!r}; add its file or path, or remove the row"
            )


def _file(value: Any) -> Any:
    """The image or its path in a cell, which is Hugging Face's {bytes, path} in some tables."""
    return (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value


def _relative(path: Path, value: str, row: int) -> str:
    """The path of an image as its name, if it leads to a file below the table's folder."""
    text = unicodedata.normalize("NFC", _with_slashes(value))
    pure, folder = PurePosixPath(text), os.path.abspath(path.parent)
    if re.match(r"\w{2,}://", text):
        raise UserError(f"{path}: row {row}: {text[:200]!r} is a URL; download the images, and give their paths")
    if pure.is_absolute() or ".." in pure.parts or re.match("[A-Za-z]:", text):
        advice = "move the table or the files"
        if pure.is_relative_to(folder) and ".." not in pure.parts:
            advice = f"write it as {str(pure.relative_to(folder))[:200]!r}, relative to that folder"
        elif not text.startswith("/") and ".." not in pure.parts:
            advice = "write it relative to that folder, such as 'photos/a.jpg'"
        raise UserError(f"{path}: row {row}: {text[:200]!r} is no relative path below the table's folder; {advice}")
    return pure.as_posix()


def _with_slashes(value: str) -> str:
    return value.strip().replace("\\", "/")


def _text(value: Any) -> str:
    """A value as text; empty if it is missing. 1.0 is 1: numbers become fractions where some are missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
    return "" if text.lower() in MISSING else unicodedata.normalize("NFC", text)


def _label(path: Path, row: int, value: Any, class_names: list[str]) -> str:
    """The name of a class; empty if it is missing."""
    text = _text(value)
    if isinstance(value, list | tuple | dict) or re.fullmatch(r"\[.*\]|\{.*\}", text):
        raise UserError(f"{path}: row {row}: its label is the list {text[:200]}, but {ONE_CLASS}")
    if class_names and re.fullmatch(r"\d+", text):
        if int(text) >= len(class_names):
            raise UserError(f"{path}: row {row}: label {text} is none of its {len(class_names):,} classes; correct it")
        return unicodedata.normalize("NFC", class_names[int(text)])
    return text


def _check_one_class(path: Path, labels: set[str]) -> None:
    """Raise a `UserError` if labels seem to be several of them in one text, such as `beach|sunset`."""
    for separator in "|;,+&/":
        several = sorted(
            label for label in labels if len(list(filter(None, label.split(separator)))) > 1 and not is_formula(label)
        )
        parts = {part.strip() for label in labels for part in label.split(separator)}
        # A comma may be part of a name, such as "bike, red"; it is none if the parts occur in other combinations
        if several and (separator in "|;" or len(parts) <= len(labels)):
            raise UserError(
                f"{path}: the label {several[0][:200]!r} seems to be several, but {ONE_CLASS}; choose one for each "
                f"image, or write the class without {separator!r}"
            )


def _class_names(path: Path, label: str) -> list[str]:
    """The names of numbered classes that Hugging Face's datasets store in a Parquet file; empty if there are none."""
    if path.suffix.lower() != ".parquet":
        return []
    try:
        return list(json.loads((_schema(path).metadata or {})[b"huggingface"])["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return []


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the table in the errors of its libraries."""
    try:
        yield
    except UnicodeError:
        raise UserError(
            f"{path}: not a valid table: it is not UTF-8; save it as UTF-8, which Excel calls 'CSV UTF-8'"
        ) from None
    except (csv.Error, *PARSE_ERRORS) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(f"{path}: not a valid table: {' '.join(str(error).split())[:200]}") from None
