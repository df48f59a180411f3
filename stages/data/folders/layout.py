"""Which split, class and key each file of a folder has, by its path."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.data.folders.listing import is_image
from stages.runtime.errors import UserError

# What a folder, or a value in a table, that names a split may be called, in any case
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}


class Entry(NamedTuple):
    """What is known of an image before it is read."""

    key: str  # of its record
    class_name: str
    split: str | None  # None: still to be chosen
    name: str  # in its class: a pattern for groups is searched in it
    group: str | None = None  # from a column of a table


def by_folders(source: Path, names: Iterable[str]) -> tuple[dict[str, Entry], list[str]]:
    """Find the layout of a folder: CLASS/…, or SPLIT/CLASS/…, inside any number of folders around it.

    Args:
        source: for messages.
        names: of all files.

    Returns:
        The images by their names, and the files that are left out: those that are not images by their names, or lie
        outside of the folders.

    Raises:
        UserError: folders of splits lie beside others, or names differ in nothing but their case or Unicode form.
    """
    files = Counter(names)
    for name, number in files.items():
        if number > 1:
            raise UserError(f"{source}: two files are named {name!r} in Unicode's composed form; rename one")
    images = {name: name.split("/") for name in files if is_image(name)}
    top = _common_folders(list(images.values()))
    inside = {name: parts[top:] for name, parts in images.items() if len(parts) > top + 1}
    first = {parts[0] for parts in inside.values()}
    named = {name for name in first if name.lower() in SPLITS}
    if named and named != first:
        raise UserError(
            f"{source}: folders of splits, such as {min(named)!r}, lie beside others, such as {min(first - named)!r}; "
            "move one kind elsewhere"
        )
    if named:
        inside = {name: parts for name, parts in inside.items() if len(parts) > 2}
    entries = {}
    for name, parts in inside.items():
        split, (class_name, *rest) = (SPLITS[parts[0].lower()], parts[1:]) if named else (None, parts)
        entries[name] = Entry("/".join([class_name, *rest]), class_name, split, "/".join(rest))
    check_case(source, {entry.class_name for entry in entries.values()})
    return entries, [name for name in files if name not in entries]


def resolve_splits(source: Path, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Make validation images test images if there are no others to test with.

    Raises:
        UserError: there are no training images, or neither test nor validation images.
    """
    found = {entry.split for entry in entries.values()}
    if TRAIN not in found or len(found) < 2:
        raise UserError(f"{source}: it has only images for {' and '.join(sorted(map(str, found)))}; add others")
    if TEST in found:
        return entries
    return {name: entry._replace(split=TRAIN if entry.split == TRAIN else TEST) for name, entry in entries.items()}


def split_names(entries: dict[str, Entry]) -> list[str]:
    """The splits of a dataset: that of validation images only if there are any."""
    has_validation = any(entry.split == VALIDATION for entry in entries.values())
    return [TRAIN, VALIDATION, TEST] if has_validation else [TRAIN, TEST]


def _common_folders(images: list[list[str]]) -> int:
    """How many folders lie around the others: those that all images share, above the folders of classes or splits."""
    depth = 0
    while (
        images
        and min(map(len, images)) > depth + 2
        and len({parts[depth] for parts in images}) == 1
        and images[0][depth].lower() not in SPLITS
    ):
        depth += 1
    return depth


def check_case(source: Path, names: set[str]) -> None:
    """Raise a `UserError` if names of classes differ in nothing but their case."""
    lower: dict[str, str] = {}
    for name in sorted(names):
        if (other := lower.setdefault(name.lower(), name)) != name:
            raise UserError(f"{source}: the classes {other!r} and {name!r} differ only in their case; rename one")
