"""Write the records of a dataset, and what was found on the way: images per class, and invalid images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write

SPLITS = ("train", "test")


def write_checked(
    name: str, class_names: list[str], checked: Iterator[tuple[Example, str]], source: Path, skip_invalid: bool
) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json. Imports TensorFlow Datasets.

    Args:
        name: of the dataset.
        class_names: in the order of the labels.
        checked: each example, and what is wrong with its image or an empty string.
        source: of the images, for messages.
        skip_invalid: leave invalid images out instead of raising an error.

    Raises:
        UserError: an image is invalid and `skip_invalid` is false, or a class has no training images.
    """
    from stages.data import writer

    counts = {split: dict.fromkeys(class_names, 0) for split in SPLITS}
    skipped: dict[str, dict[str, str]] = {split: {} for split in SPLITS}

    def valid() -> Iterator[Example]:
        for example, error in checked:
            split, key, _, label = example
            if error and not skip_invalid:
                raise UserError(
                    f"{source}: {split}: {key!r} {error}; remove it, or set skip_invalid_images: true in params.yaml"
                )
            if error:
                skipped[split][key] = error
                continue
            counts[split][class_names[label]] += 1
            yield example
        if absent := [label for label, count in counts["train"].items() if not count]:
            raise UserError(f"{source}: class {absent[0]!r} has no training images; remove it from classes or add some")

    writer.write(name, class_names, SPLITS, valid())
    write_json(counts, paths.counts(name))
    write_json(skipped, paths.skipped(name))
    print(", ".join(f"{split}: {sum(counts[split].values()):,} images" for split in SPLITS))
    if number := sum(map(len, skipped.values())):
        print(f"skipped {number:,} files that are not valid images: {paths.skipped(name)}")


def write_json(table: Any, target: Path) -> None:
    """Write a table as JSON that people can read."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
