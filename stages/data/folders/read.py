"""Read a dataset of your own images: a folder or a table, without changing it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stages.config.datasets import FolderConfig, TableConfig
from stages.data import split
from stages.data.convert import decode, is_image
from stages.data.examples import Example
from stages.data.folders import layout, table
from stages.data.folders.converted import Content, Contents, convert_all
from stages.data.folders.corrections import correct
from stages.data.folders.listing import files, unreadable
from stages.data.jpeg import MAX_PIXELS
from stages.runtime import paths
from stages.runtime.errors import UserError

TINY = 64  # pixels: the largest side of images that are stored with one channel


@dataclass(frozen=True)
class Listing:
    """The images of a source before they are read."""

    source: Path
    entries: dict[str, layout.Entry]  # by their names
    ignored: list[str]  # names of files that are not images
    contents: Callable[[], Contents]  # of all files, also of those

    @property
    def has_splits(self) -> bool:
        """Whether the source says which images are for training and which for testing."""
        return any(entry.split for entry in self.entries.values())

    @property
    def left_out(self) -> str:
        """How many pictures are left out, and what to do; empty if none are."""
        outside = sum(map(is_image, self.ignored))
        what = f"{outside:,} images are in no folder of a class" if outside else ""
        return "; ".join(filter(None, [unreadable(self.ignored), what]))

    def images(self) -> Contents:
        """The name of each image, in the order of the source, and a function that reads it."""
        return ((name, read) for name, read in self.contents() if name in self.entries)


def list_images(source: Path, columns: TableConfig | None) -> Listing:
    """Find all images of a source, and the class and split of each.

    Raises:
        UserError: the source is missing or corrupt, has paths or links that lead out of it, or has no images.
    """
    if columns:
        path = source / columns.file if columns.file else source
        listing = Listing(path, table.entries(path, columns), [], partial(table.contents, path, columns))
    else:
        found = list(files(source))
        entries, ignored = layout.by_folders(source, (name for name, _ in found))
        contents = {name: path.read_bytes for name, path in found}
        listing = Listing(source, entries, ignored, contents.items)
    if not listing.entries:
        tables = [name for name in listing.ignored if name.lower().endswith(table.TABLES)]
        advice = listing.left_out or "arrange it so"
        advice += f"; if {tables[0]!r} lists them, give that: FROM={source / tables[0]}" if tables else ""
        raise UserError(
            f"{source}: it has no images in folders of classes, such as CLASS/a.jpg or train/CLASS/a.jpg; {advice}"
        )
    return listing


def assign_splits(
    listing: Listing, test_fraction: float | None, validation_fraction: float | None, group: str | None
) -> dict[str, layout.Entry]:
    """Give every image a split, the source's own or one by hashes of names.

    Args:
        listing: the images.
        test_fraction: of images to test with; None: the source has splits.
        validation_fraction: of images that are taken from the training split to validate with; None: none are.
        group: a pattern; images in whose names it finds the same text (in its parentheses, if it has any) are together.

    Raises:
        UserError: the source has splits although a fraction is given, or the other way around; or there are too few
            images for `validation_fraction`.
    """
    # What stays together in one split: the group of an image, or the image itself
    units = {name: group_of(entry, group) or entry.key for name, entry in listing.entries.items()}
    if listing.has_splits and test_fraction is None:
        entries = _resolve_splits(listing)
    elif test_fraction is not None and not listing.has_splits:
        entries = {name: entry._replace(split=layout.TRAIN) for name, entry in listing.entries.items()}
        entries = _hold_out(entries, units, layout.TEST, test_fraction)
    else:
        what = "has splits of its own: remove" if listing.has_splits else "has no splits of its own: add"
        raise UserError(f"{listing.source}: it {what} test_fraction in params.yaml")
    if validation_fraction is None:
        return entries
    if layout.VALIDATION in layout.split_names(entries):
        raise UserError(
            f"{listing.source}: it has a validation split of its own: remove validation_fraction in params.yaml"
        )
    entries = _hold_out(entries, units, layout.VALIDATION, (test_fraction or 0) + validation_fraction)
    if layout.VALIDATION not in layout.split_names(entries):
        raise UserError(
            f"{listing.source}: no class has enough images or groups to train, validate and test; add some, or do "
            "without validation_fraction"
        )
    return entries


def _resolve_splits(listing: Listing) -> dict[str, layout.Entry]:
    """Make validation images test images if there are no others to test with."""
    found = {entry.split for entry in listing.entries.values()}
    if layout.TRAIN in found and layout.TEST in found:
        return listing.entries
    if layout.TRAIN in found and layout.VALIDATION in found:
        return {
            name: entry if entry.split == layout.TRAIN else entry._replace(split=layout.TEST)
            for name, entry in listing.entries.items()
        }
    advice = "add others"
    name, entry = next(iter(listing.entries.items()))
    if len(found) == 1 and name != entry.key:  # from a folder
        folder = listing.source / name.removesuffix(f"/{entry.key}")
        advice += f", or give that folder alone, which is then split: FROM={folder}"
    only = f"it has only images for {' and '.join(sorted(map(str, found)))}"
    raise UserError(f"{listing.source}: {'; '.join(filter(None, [only, listing.left_out, advice]))}")


def _hold_out(
    entries: dict[str, layout.Entry], units: dict[str, str], target: str, fraction: float
) -> dict[str, layout.Entry]:
    """Move some units from the training split to the split `target`."""
    train = {name: entry for name, entry in entries.items() if entry.split == layout.TRAIN}
    chosen = split.held_out(((units[name], entry.class_name) for name, entry in train.items()), fraction)
    moved = {name: entry._replace(split=target) for name, entry in train.items() if units[name] in chosen}
    return entries | moved


def checked_examples(
    name: str, config: FolderConfig, max_pixels: int = MAX_PIXELS
) -> tuple[list[str], Iterator[tuple[Example, str]]]:
    """Return the splits of a dataset, and an iterator of its examples, each with what is wrong or an empty string.

    An image is JPEG or PNG bytes, which are read as RGB; or uint8 (height, width, 1), if `has_one_channel` says so.

    Args:
        name: of the dataset.
        config: its entry in params.yaml.
        max_pixels: that an image may have.

    Raises:
        UserError: as `list_images` and `assign_splits`; or a class is not in `classes`.
    """
    listing = list_images(Path(config.path), config.table)
    entries = assign_splits(listing, config.test_fraction, config.validation_fraction, config.group)
    labels = {class_name: label for label, class_name in enumerate(config.classes)}
    corrections = paths.corrections(name)
    if corrections.exists():
        names = dict(zip(config.classes, config.as_dataset().class_names, strict=True))
        entries, counts = correct(entries, corrections, names)
        listing = replace(listing, entries=entries)
        numbers = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        print(f"{corrections}: {numbers or 'nothing to correct'}")
    for entry in entries.values():
        if entry.class_name not in labels:
            raise UserError(
                f"{listing.source}: {entry.key!r}: {entry.class_name!r} is not in folders.{name}.classes in "
                "params.yaml; add it there"
            )

    def examples() -> Iterator[tuple[Example, str]]:
        is_gray = has_one_channel(content for content, _ in convert_all(listing.images(), max_pixels))
        for content, data in convert_all(listing.images(), max_pixels):
            entry = entries[content.name]
            image = decode(data, 1)[0] if is_gray and data else data
            yield (str(entry.split), entry.key, image, labels[entry.class_name]), content.error

    return layout.split_names(entries), examples()


def has_one_channel(contents: Iterable[Content]) -> bool:
    """Whether images are stored with one channel: all are gray, tiny, and of one size. Others are read as RGB."""
    shapes = (content.shape for content in contents if not content.error)
    *size, channels = first = next(shapes, (0, 0, 0))
    return channels == 1 and max(size) <= TINY and all(shape == first for shape in shapes)


def group_of(entry: layout.Entry, pattern: str | None) -> str | None:
    """The group of an image, by a pattern or a column of a table; None if it is in none."""
    match = re.search(pattern, entry.name) if pattern else None
    if match:
        return match.group(1) if match.re.groups and match.group(1) is not None else match.group()
    return entry.group
