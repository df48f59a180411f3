"""Which split, class and key each file of a folder has, by its path."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.data.convert import is_image
from stages.runtime.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Words that name a split in a folder's name or a table, in any case, and words that may stand beside them
SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), TEST),
}
FILLERS = {"set", "data", "dataset", "split", "folder", "dir", "images", "image", "imgs", "img", "photos", "pictures"}


class Entry(NamedTuple):
    """What is known of an image before it is read."""

    key: str  # of its record
    class_name: str
    split: str | None  # None: still to be chosen
    name: str  # in its class: a pattern for groups is searched in it
    group: str | None = None  # from a column of a table


def split_of(name: str) -> tuple[str, str] | None:
    """The split that a name stands for, and the rest of the name: `training_set`, `Test`, `seg_train`; None if none."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [re.sub(f"^({'|'.join(SPLITS)})({'|'.join(FILLERS)})$", r"\1", word) for word in words]
    found = [SPLITS[word] for word in words if word in SPLITS]
    rest = " ".join(word for word in words if word not in SPLITS and word not in FILLERS)
    return (found[0], rest) if len(found) == 1 else None


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
    splits = _folders_of_splits(source, {parts[0] for parts in inside.values()})
    if not splits:
        _check_subfolders(source, list(inside.values()))
    entries = {}
    for name, parts in inside.items():
        split = splits.get(parts[0])
        if split:
            parts = parts[2 if len(parts) > 3 and parts[1] == parts[0] else 1 :]  # as in seg_train/seg_train/CLASS
        if len(parts) > 1:
            entries[name] = Entry("/".join(parts), parts[0], split, "/".join(parts[1:]))
    check_case(source, {entry.class_name for entry in entries.values()})
    return entries, [name for name in files if name not in entries]


def _folders_of_splits(source: Path, folders: set[str]) -> dict[str, str]:
    """The split of each folder; empty if they are classes."""
    found = {name: kind for name in sorted(folders) if (kind := split_of(name))}
    if len(found) == len(folders) and len({rest for _, rest in found.values()}) == 1:
        first: dict[str, str] = {}
        for name, (split, _) in found.items():
            if (other := first.setdefault(split, name)) != name:
                raise UserError(f"{source}: the folders {other!r} and {name!r} are both for {split}; make them one")
        return {name: split for name, (split, _) in found.items()}
    by_rest: dict[str, list[str]] = defaultdict(list)
    for name, (_, rest) in found.items():
        by_rest[rest].append(name)
    splits: list[list[str]] = [names for rest, names in by_rest.items() if not rest or len(names) > 1]
    if len(splits) > 1:
        longest = max(splits, key=len)
        raise UserError(
            f"{source}: folders such as {_listed(longest)} seem to be splits of a class; arrange them as train/CLASS"
        )
    for names in splits:
        raise UserError(
            f"{source}: folders of splits, such as {names[0]!r}, lie beside others, such as "
            f"{min(folders - {*names})!r}; move one kind elsewhere, or rename a class that has the name of a split"
        )
    return {}


def _check_subfolders(source: Path, images: list[list[str]]) -> None:
    """Raise a `UserError` if what seem to be classes all contain the same folders."""
    below: dict[str, set[str]] = defaultdict(set)
    for folder, *rest in images:
        below[folder].add(rest[0] if len(rest) > 1 else "")
    shared = max(below.values(), key=len, default=set())
    if len(below) > 1 and len(shared) > 1 and all("" not in found and found <= shared for found in below.values()):
        if all(map(split_of, shared)):
            raise UserError(
                f"{source}: the folders {_listed(below)} contain splits, such as {min(shared)!r}; arrange them as "
                "train/CLASS, the other way around"
            )
        raise UserError(
            f"{source}: the folders {_listed(below)} all contain {_listed(shared)}: if they are splits, name them "
            "train, validation and test; if they are sources of images, join them; if they are classes, move the "
            "images of each into one folder"
        )


def _listed(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first!r} and {f'{len(others):,} others' if others[1:] else repr(*others)}"


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
        and (split_of(images[0][depth]) or ("", "other"))[1]
    ):
        depth += 1
    return depth


def check_case(source: Path, names: set[str]) -> None:
    """Raise a `UserError` if names of classes differ in nothing but their case."""
    lower: dict[str, str] = {}
    for name in sorted(names):
        if (other := lower.setdefault(name.lower(), name)) != name:
            raise UserError(f"{source}: the classes {other!r} and {name!r} differ only in their case; rename one")
