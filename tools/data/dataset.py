"""`make dataset NAME=flowers FROM=PATH`: make a folder or a table of images a dataset of params.yaml.

BACKBONE=efficientnetv2b0 chooses another network of keras.applications; without FROM, for a dataset that is there.

PATH is a folder CLASS/… or train|val|test/CLASS/…, or a CSV or Parquet table.
Nothing below PATH is changed.
"""

import argparse
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from stages.config import params
from stages.config.datasets import FolderConfig, TableConfig, is_formula
from stages.config.messages import explain
from stages.data.folders import table
from stages.data.folders.converted import Content, convert_all
from stages.data.folders.layout import TEST, TRAIN, VALIDATION, Entry, split_names
from stages.data.folders.listing import is_hidden, unreadable
from stages.data.folders.read import Listing, assign_splits, group_of, has_one_channel, list_images
from stages.runtime.cli import guard
from stages.runtime.errors import UserError, printable
from stages.runtime.progress import progress
from tools.data import head
from tools.lib import recipe
from tools.lib.params_file import NewEntry

HEADING = "Your own images, which stay where they are: docs/datasets.md. `make dataset` adds entries."
TEST_FRACTION, VALIDATION_FRACTION = 0.2, 0.1
VALIDATION_REASON = (
    "`validation_fraction` holds out whole groups to validate with. Without it, training would hold out single images: "
    "a group could be in training and in validation, whose accuracy would then be too high."
)
PURPOSES = {TRAIN: "to train", VALIDATION: "to validate", TEST: "to test"}
ELONGATED = 1.5  # long side by short side; pictures of cameras have 4:3 or 3:2
SHOWN = 10  # classes, and problems of a kind, that are listed
COLUMNS = {  # of a table, if no option names them
    "image": ("image", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "image_file"),
    "label": ("label", "class", "category", "target", "labels", "class_name"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "patient", "patient_id", "video", "burst", "subject"),
}


def dataset(
    name: str,
    path: str,
    pattern: str | None,
    fraction: float | None,
    columns: dict[str, str | None],
    skip_invalid: bool = False,
    fit: str = "crop",
    backbone: str | None = None,
) -> None:
    """Print what a source contains, add its entries to params.yaml, and print the next command.

    Raises:
        UserError: the source cannot be a dataset, or params.yaml has such an entry already. Nothing is changed then.
    """
    values = params.load()
    if backbone:
        head.check_backbone(values, backbone)
        if not path:
            if pattern or skip_invalid or fit != "crop":
                raise UserError(
                    "GROUP, FIT and SKIP_INVALID are for a new dataset: name its source, as in FROM=../flowers"
                )
            head.add_head(values, name, backbone)
            return
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r}: a dataset's name is lower-case letters, digits and _, such as flowers")
    if name in {**values.datasets, **values.weights, **values.features}:
        raise UserError(f"params.yaml: there is already a {name!r}; remove it, or choose another name")
    if not path:
        raise UserError("no source is given; name one, as in FROM=../flowers")
    source = Path(os.path.normpath(os.path.expanduser(path)))
    if _contains_repository(source):
        raise UserError(f"{source}: it contains this repository; move the images to a folder of their own")
    columns_found = _table(source, columns)
    if columns_found and columns_found.file:
        if _contains_repository(source.parent):  # a dep of the stage, which would contain its outputs
            raise UserError(
                f"{source}: its folder contains this repository; move it and the images to a folder of their own"
            )
        source = source.parent
    listing = list_images(source, columns_found)
    classes = sorted({entry.class_name for entry in listing.entries.values()})
    _check_classes(listing, classes)
    fraction = TEST_FRACTION if fraction is None and not listing.has_splits else fraction
    entry: dict[str, Any] = {"path": source.as_posix(), "classes": classes}
    entry |= {"table": columns_found.model_dump(exclude_none=True)} if columns_found else {}
    entry |= {} if fraction is None else {"test_fraction": fraction}
    is_grouped = pattern or (columns_found and columns_found.group)
    has_validation = {VALIDATION, TEST} <= {entry.split for entry in listing.entries.values()}
    validation = VALIDATION_FRACTION if is_grouped and not has_validation else None
    entry |= {"validation_fraction": validation} if validation else {}
    entry |= {"group": pattern} if pattern else {}
    entry |= {"skip_invalid_images": True} if skip_invalid else {}
    entry |= {} if fit == "crop" else {"fit": fit}
    _check_entry(name, entry)
    groups = _groups(listing, pattern) if is_grouped else ""
    splits = assign_splits(listing, fraction, validation, pattern)
    images = convert_all(listing.images(), values.max_pixels)
    contents = [content for content, _ in progress(images, len(listing.entries), name, "images")]
    facts = _describe(name, listing, splits, contents, classes)
    if fit == "crop" and facts.elongation > ELONGATED:
        print(
            f"  warning: the median picture is {facts.elongation:.1f} times as long as wide, and a model sees only its "
            f"middle, {1 / facts.elongation:.0%}: FIT=pad shows all of it with borders, FIT=stretch "
            "distorted (without make: --fit)"
        )
    if groups:
        print(f"  {groups}")
    if (invalid := sum(bool(content.error) for content in contents)) and not skip_invalid:
        raise UserError(
            f"{listing.source}: {invalid:,} of {len(contents):,} images are invalid; repair them, or leave them out: "
            "run it again with SKIP_INVALID=1 (without make: --skip-invalid)"
        )
    chosen = recipe.choose(name, facts, backbone)
    added = [NewEntry("folders", name, entry, VALIDATION_REASON if validation else "")]
    head.add_recipe(values, chosen, added, {"folders": HEADING})


def _contains_repository(folder: Path) -> bool:
    return Path().resolve().is_relative_to(folder.resolve())


def _check_entry(name: str, entry: dict[str, Any]) -> None:
    try:
        FolderConfig.model_validate(entry)
    except ValidationError as error:
        raise UserError(explain(error, entry, f"folders.{name}")) from None


def _table(source: Path, columns: dict[str, str | None]) -> TableConfig | None:
    """The columns of a table, by the options or by their usual names; None for folders."""
    if source.suffix.lower() not in table.TABLES or source.is_dir():
        if any(columns.values()):
            raise UserError(f"{source}: options for columns are for tables, .csv or .parquet; leave them out")
        return None
    if not source.is_file():
        raise UserError(f"{source}: no such table; correct its path")
    known = table.columns(source)
    lower = {column.lower(): column for column in reversed(known)}
    chosen: dict[str, Any] = {}
    for what, usual in COLUMNS.items():
        chosen[what] = columns[what] or next((lower[column] for column in usual if column in lower), None)
        if chosen[what] is None and what in ("image", "label"):
            raise UserError(
                f"{source}: which column has the {what}s? Name one of {', '.join(known)[:300]}: python -m "
                f"tools.data.dataset NAME {shlex.quote(str(source))} --{what} COLUMN; {table.ONE_CLASS}"
            )
        if not columns[what] and [column.lower() for column in known].count((chosen[what] or "").lower()) > 1:
            raise UserError(f"{source}: several columns are named {chosen[what]!r}; rename the others, or name one")
    words = "|".join((*COLUMNS["label"], "tag"))
    numbered = [column for column in known if re.fullmatch(rf"(?:{words})[ _-]?\d+", column.lower())]
    if numbered and not columns["label"]:
        raise UserError(
            f"{source}: columns such as {numbered[0]!r} seem to be several labels of an image, but {table.ONE_CLASS}; "
            f"name one: python -m tools.data.dataset NAME {shlex.quote(str(source))} --label COLUMN"
        )
    has_paths = table.has_paths(source, chosen["image"])
    return TableConfig(file=source.name if has_paths else None, **chosen)


def _check_classes(listing: Listing, classes: list[str]) -> None:
    if len(classes) < 2:
        raise UserError(f"{listing.source}: its only class is {classes[0]!r}; a classifier needs two or more")
    if formulas := [name for name in classes if is_formula(name)]:
        raise UserError(
            f"{listing.source}: the class {formulas[0][:200]!r} starts like a formula of a spreadsheet; "
            "rename its folder or label"
        )
    folders: dict[str, set[str]] = defaultdict(set)  # of classes, by the folder that contains them
    for name, entry in listing.entries.items():
        if name.endswith(entry.key):
            folders[name.removesuffix(entry.key)].add(entry.class_name)
    for prefix, names in folders.items():
        folder = listing.source / prefix
        inside = [name.removeprefix(prefix) for name in listing.ignored if name.startswith(prefix)]
        below = {name.partition("/")[0] for name in inside if "/" in name}
        if folder.is_dir():
            below |= {unicodedata.normalize("NFC", path.name) for path in folder.iterdir() if path.is_dir()}
        for name in sorted(below - names):
            if not is_hidden(name) and not any(other.startswith(f"{prefix}{name}/") for other in folders):
                why = unreadable(other for other in inside if other.startswith(f"{name}/"))
                advice = f" that can be read: {why}" if why else "; add some, or move it elsewhere"
                raise UserError(f"{folder / name}: this folder of a class has no images{advice}")


def _groups(listing: Listing, pattern: str | None) -> str:
    """How many groups there are, an image that is in none, and a group that the source parts. No group is an error."""
    found = {name: group_of(entry, pattern) for name, entry in listing.entries.items()}
    alone = [name for name, group in found.items() if not group]
    if len(alone) == len(found):
        what = f"the pattern {pattern!r} is in no image's name" if pattern else "no image has a group"
        raise UserError(f"{listing.source}: {what}, such as {listing.entries[alone[0]].name!r}; correct it")
    splits: dict[str, set[str | None]] = defaultdict(set)  # of each group
    for name, group in found.items():
        if group:
            splits[group].add(listing.entries[name].split)
    rest = f"; images in none: {len(alone):,}, such as {alone[0]!r}" if alone else ""
    parted = [group for group, ones in splits.items() if len(ones) > 1]
    if parted:
        rest += (
            f"\n  warning: the source's own splits part groups: {len(parted):,}, such as {parted[0]!r}; accuracies "
            "will be too high. Move images, or give a source without splits"
        )
    return f"groups: {len(splits):,}{rest}"


def _describe(
    name: str, listing: Listing, splits: dict[str, Entry], contents: list[Content], classes: list[str]
) -> recipe.Facts:
    """Print what was found; return what a recipe depends on."""
    valid = [content for content in contents if not content.error]
    if not valid:
        raise UserError(f"{listing.source}: none of its {len(contents):,} images is valid; {_invalid(contents[0])}")
    print(f"{name}: {len(valid):,} images of {len(classes):,} classes in {listing.source}")
    counts = Counter(splits[content.name].class_name for content in valid)
    by_split = {split: Counter[str]() for split in split_names(splits)}
    for content in valid:
        by_split[str(splits[content.name].split)][splits[content.name].class_name] += 1
    if empty := [class_name for class_name in classes if not by_split[TRAIN][class_name]]:
        raise UserError(f"{listing.source}: class {empty[0]!r} has no valid images to train with; add some")
    if missing := [split for split, found in by_split.items() if not found]:
        raise UserError(f"{listing.source}: no valid images {PURPOSES[missing[0]]} with; add some")
    for class_name in classes[: SHOWN if len(classes) > SHOWN else None]:
        validation = f", {by_split[VALIDATION][class_name]:,} to validate" if VALIDATION in by_split else ""
        tests = by_split[TEST][class_name]
        print(f"  {class_name}: {counts[class_name]:,}, {tests:,} of them to test{validation}")
    if len(classes) > SHOWN:
        each = _span(f"{min(counts.values()):,}", f"{max(counts.values()):,}")
        print(f"  … {each} images in each of {len(classes):,} classes")
    sides = sorted((min(content.shape[:2]), max(content.shape[:2])) for content in valid)
    kinds = Counter(Path(content.name).suffix.lower().lstrip(".") or "in the table" for content in valid)
    print(f"  sizes: {_span(*(f'{short} × {long}' for short, long in (sides[0], sides[-1])))} pixels; {_listed(kinds)}")
    if converted := Counter(what for content in valid for what in content.applied):
        print(f"  to be converted: {_listed(converted)}")
    for kind, found in _problems(listing, splits, contents).items():
        for problem in found[:SHOWN]:
            print(f"  problem: {problem}")
        if len(found) > SHOWN:
            print(f"  … and {len(found) - SHOWN:,} more {kind}")
    sizes = {content.shape[:2] for content in valid}
    return recipe.Facts(
        short_side=int(median(short for short, _ in sides)),
        elongation=median(long / short for short, long in sides),
        size=sizes.pop() if len(sizes) == 1 else None,
        channels=1 if has_one_channel(valid) else 3,
        largest_class=max(counts.values()),
        smallest_class=min(counts.values()),
    )


def _problems(listing: Listing, splits: dict[str, Entry], contents: list[Content]) -> dict[str, list[str]]:
    """What a user should look at, by its kind, in a line each."""
    found: dict[str, list[str]] = defaultdict(list)
    found["invalid images"] = [_invalid(content) for content in contents if content.error]
    if listing.ignored:
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in listing.ignored)
        found["left out"].append(
            f"left out, as they are no images by their names, or outside of the folders of classes: {_listed(kinds)}"
            + (f" ({listing.left_out})" if listing.left_out else "")
        )
    same: dict[bytes, list[str]] = defaultdict(list)
    for content in contents:
        if not content.error:
            same[content.digest].append(content.name)
    for names in same.values():
        kind = ""
        if len({splits[name].class_name for name in names}) > 1:
            kind = "in two classes"
        elif len(among := {str(splits[name].split) for name in names}) > 1:
            *first, last = (purpose for split, purpose in PURPOSES.items() if split in among)
            kind = f"{', '.join(first)} and {last}"
        if kind:
            found[f"files {kind}"].append(f"the same file {kind}: {' = '.join(map(repr, names[:3]))}")
    return found


def _invalid(content: Content) -> str:
    return f"{content.name!r} {content.error}"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {printable(what)}" for what, number in sorted(counts.items()))


def _parse() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tools.data.dataset", description=__doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--group", metavar="PATTERN", dest="pattern", help="of file names that stay together")
    parser.add_argument("--backbone", metavar="NETWORK", help="a network of keras.applications, in lower case")
    parser.add_argument("--test-fraction", type=float, dest="fraction", help=f"instead of {TEST_FRACTION}")
    for what in COLUMNS:
        option = "--group-column" if what == "group" else f"--{what}"
        parser.add_argument(option, metavar="COLUMN", dest=f"column_{what}", help=f"of a table: the {what} of an image")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out files that are not valid images")
    parser.add_argument("--fit", choices=["crop", "pad", "stretch"], default="crop", help="to the size of a model")
    found = vars(parser.parse_args())
    columns = {what: found.pop(f"column_{what}") for what in COLUMNS}
    return {**found, "columns": columns}


if __name__ == "__main__":
    guard(lambda: dataset(**_parse()))
