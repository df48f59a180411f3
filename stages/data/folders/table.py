"""Images that a table lists: CSV or Parquet, with paths of files beside it, or with the files in it."""

import csv
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stages.config.folders import TableConfig
from stages.data.folders.layout import SPLITS, Entry, check_case
from stages.data.folders.listing import check_inside, read_file
from stages.runtime.errors import UserError
from stages.runtime.files import PARSE_ERRORS

TABLES = (".csv", ".parquet")
BATCH = 64  # rows of Parquet that are read at once, because a row may contain an image

Row = dict[str, Any]


def entries(path: Path, table: TableConfig) -> dict[str, Entry]:
    """The images that the table `path` lists, by their names: paths as they stand there, or numbers of rows.

    Raises:
        UserError: the table is corrupt, or a row has no label, an unknown split, or an image that is listed twice; or
            labels differ only in their case.
    """
    names = _class_names(path, table.label)
    wanted = [table.label, table.split, table.group, table.image if has_paths(path, table.image) else None]
    images: dict[str, Entry] = {}
    for number, row in enumerate(_rows(path, wanted), 1):
        name = _name(path, row.get(table.image), number)
        if name in images:
            raise UserError(f"{path}: row {number}: {name!r} is listed twice; remove one")
        label = row[table.label]
        if label is None or str(label).strip() == "":
            raise UserError(f"{path}: row {number}: it has no {table.label!r}; add one, or remove the row")
        split = None
        if table.split:
            split = SPLITS.get(str(row[table.split]).strip().lower())
            if split is None:
                raise UserError(
                    f"{path}: row {number}: {table.split} is {row[table.split]!r}; use train, validation or test"
                )
        class_name = names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label).strip()
        group = str(row[table.group]) if table.group and row[table.group] not in (None, "") else None
        images[name] = Entry(name, unicodedata.normalize("NFC", class_name), split, name, group)
    check_case(path, {entry.class_name for entry in images.values()})
    return images


def contents(path: Path, table: TableConfig) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each image and a function that reads it, in the order of the table.

    Raises:
        UserError: the table is corrupt, or a file is missing, or its path leads out of the table's folder.
    """
    for number, row in enumerate(_rows(path, [table.image]), 1):
        value = row[table.image]
        name = _name(path, value, number)
        if not isinstance(value, str):
            data = value.get("bytes") if isinstance(value, dict) else value
            yield name, partial(bytes, data if isinstance(data, bytes) else b"")
            continue
        file = path.parent / name
        if not file.is_file():  # copied from a Mac, it may have the decomposed letters that the table has
            file = path.parent / _with_slashes(value)
        check_inside(file, path.parent, name)
        if not file.is_file():
            raise UserError(f"{path}: row {number}: there is no file {name!r} beside the table; correct its path")
        yield name, partial(read_file, file)


def columns(path: Path) -> list[str]:
    """The names of a table's columns."""
    with _named(path):
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, _dialect(file.readline(), file)), [])


def _dialect(header: str, file: Any) -> type[csv.Dialect]:
    """The delimiter of a table: the one of comma, semicolon and tab that occurs most often in its first line."""

    class Dialect(csv.excel):
        delimiter = max(",;\t", key=header.count)

    file.seek(0)
    return Dialect


def _rows(path: Path, wanted: list[str | None]) -> Iterator[Row]:
    """Yield the rows; of Parquet only with the wanted columns."""
    names = [name for name in wanted if name]
    known = columns(path)
    if missing := [name for name in names if name not in known]:
        raise UserError(f"{path}: it has no column {missing[0]!r}; its columns are {', '.join(known)[:300]}")
    with _named(path):
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=names):
                    yield from batch.to_pylist()
        else:
            with path.open(encoding="utf-8-sig", newline="") as text:
                yield from csv.DictReader(text, dialect=_dialect(text.readline(), text), strict=True)


def has_paths(path: Path, column: str) -> bool:
    """Whether a column contains paths; else it contains images."""
    if path.suffix.lower() != ".parquet":
        return True
    import pyarrow.parquet

    with _named(path):
        schema = pyarrow.parquet.read_schema(path)
        if column not in schema.names:
            return True
        kind = schema.field(column).type
        return str(getattr(kind, "value_type", kind)) in ("string", "large_string")  # also of a category of pandas


def _name(path: Path, value: Any, number: int) -> str:
    """The name of an image: its path, checked, or the number of its row if the table contains the file."""
    if not isinstance(value, str):
        return f"{number:07d}"
    text = unicodedata.normalize("NFC", _with_slashes(value))
    pure = PurePosixPath(text)
    if not text or pure.is_absolute() or ".." in pure.parts or re.match("[A-Za-z]:", text):
        folder = os.path.abspath(path.parent)
        advice = "move the table or the files"
        if pure.is_relative_to(folder) and ".." not in pure.parts:
            advice = f"write it as {str(pure.relative_to(folder))[:200]!r}, relative to that folder"
        raise UserError(f"{path}: row {number}: {value[:200]!r} is no relative path below the table's folder; {advice}")
    return pure.as_posix()


def _with_slashes(value: str) -> str:
    return value.strip().replace("\\", "/")


def _class_names(path: Path, label: str) -> list[str]:
    """The names of numbered classes that Hugging Face's datasets store in a Parquet file; empty if there are none."""
    if path.suffix.lower() != ".parquet":
        return []
    import pyarrow.parquet

    with _named(path):
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    try:
        return list(json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return []


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the table in the errors of its libraries."""
    try:
        yield
    except (csv.Error, *PARSE_ERRORS) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(f"{path}: not a valid table: {' '.join(str(error).split())[:200]}") from None
