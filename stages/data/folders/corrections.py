"""Corrections of labels, which a person made in a table: the images stay as they are."""

import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from stages.data.folders.layout import Entry
from stages.data.folders.table import columns, csv_rows
from stages.runtime.errors import UserError

COLUMNS = ("file", "suggested_label")  # `label` and `split` are compared if they are there; others are not read
DROP = "drop"


def correct(entries: dict[str, Entry], path: Path, names: dict[str, str]) -> tuple[dict[str, Entry], Counter[str]]:
    """Give images the labels of a table, or leave them out. No image changes its key or its split.

    Args:
        entries: all images of a dataset, by their names.
        path: a CSV table. `file` is the name of an image or its key, also after a `'`; `suggested_label` is a class,
            `drop`, or empty to change nothing.
        names: the names of the classes, by their folders or labels.

    Returns:
        The images that remain, and how many were relabeled and left out.

    Raises:
        UserError: the table is corrupt, or a line has a file or a class that is not in the dataset, or corrects a label
            that the image does not have, or an image a second time.
    """
    if absent := [name for name in COLUMNS if name not in columns(path)]:
        raise UserError(f"{path}: it has no column {absent[0]!r}; add it")
    by_key: dict[str, list[str]] = defaultdict(list)
    for name, entry in entries.items():
        by_key[entry.key].append(name)
    classes = {shown: name for name, shown in names.items()} | {name: name for name in names}
    corrected, counts, seen = dict(entries), Counter[str](), set[str]()
    for line, row in csv_rows(path):
        row = {column: unicodedata.normalize("NFC", value.strip()) for column, value in row.items()}
        where, file = f"{path}: line {line}", row["file"]
        if file not in entries and file not in by_key:
            file = file.removeprefix("'")  # with which an audit keeps a name from being a formula
        found = [file] if file in entries else by_key[file]
        found = [name for name in found if row.get("split", "") in ("", entries[name].split)]
        if len(found) != 1:
            what = f"is the name of {len(found)} images; add a column split" if found else "is no image of the dataset"
            raise UserError(f"{where}: {file!r} {what}, or remove the line")
        (name,) = found
        entry, target, label = entries[name], row["suggested_label"], row.get("label", "")
        if not target:
            continue
        if name in seen:
            raise UserError(f"{where}: {file!r} is corrected twice; remove one")
        seen.add(name)
        if label and classes.get(label) != entry.class_name:
            raise UserError(f"{where}: {file!r} has the label {entry.class_name!r}, not {label!r}; remove the line")
        if target in classes:
            corrected[name] = entry._replace(class_name=classes[target])
            counts["relabeled"] += classes[target] != entry.class_name
        elif target == DROP:
            del corrected[name]
            counts["left out"] += 1
        else:
            raise UserError(
                f"{where}: {target!r} is no class; write one of {', '.join(names)[:200]}, {DROP} or nothing"
            )
    return corrected, counts
