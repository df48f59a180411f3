"""Write the records of a dataset, and what was found on the way: images per class, and invalid images."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write

SPLITS = ("train", "test")  # of archives

Checked = tuple[Example, str]  # an example, and what is wrong with its image or an empty string


class Tally:
    """Counts valid images, and lists the others."""

    def __init__(
        self, class_names: list[str], source: Path, skip_invalid: bool, splits: Sequence[str] = SPLITS
    ) -> None:
        """Count none.

        Args:
            class_names: in the order of the labels.
            source: of the images, for messages.
            skip_invalid: leave invalid images out instead of raising an error.
            splits: their names.
        """
        self.class_names = class_names
        self._source, self._skip_invalid = source, skip_invalid
        self.counts = {split: dict.fromkeys(class_names, 0) for split in splits}
        self.skipped: dict[str, dict[str, str]] = {split: {} for split in splits}

    def empty(self) -> "Tally":
        """A tally of the same kind of images that has counted none."""
        return Tally(self.class_names, self._source, self._skip_invalid, list(self.counts))

    def add(self, other: "Tally") -> None:
        """Add what another tally has counted and listed."""
        for split in self.counts:
            for name, number in other.counts[split].items():
                self.counts[split][name] += number
            self.skipped[split] |= other.skipped[split]

    def valid(self, checked: Iterable[Checked]) -> Iterator[Example]:
        """Yield the valid ones of examples, each of which comes with what is wrong with it or an empty string.

        Raises:
            UserError: an image is invalid and `skip_invalid` is false.
        """
        for example, error in checked:
            split, key, _, label = example
            if error and not self._skip_invalid:
                raise UserError(
                    f"{self._source}: {split}: {key!r} {error}; remove it, or set skip_invalid_images: true in "
                    "params.yaml"
                )
            if error:
                self.skipped[split][key] = error
                continue
            self.counts[split][self.class_names[label]] += 1
            yield example

    def check_classes(self) -> None:
        """Raise a `UserError` if a class has no training images."""
        if absent := [label for label, count in self.counts["train"].items() if not count]:
            raise UserError(
                f"{self._source}: class {absent[0]!r} has no training images; remove it from classes or add some"
            )

    def write(self, name: str) -> None:
        """Write data/counts/NAME.json and data/skipped/NAME.json."""
        write_json(self.counts, paths.counts(name))
        write_json(self.skipped, paths.skipped(name))
        print(", ".join(f"{split}: {sum(counts.values()):,} images" for split, counts in self.counts.items()))
        if number := sum(map(len, self.skipped.values())):
            print(f"skipped {number:,} files that are not valid images: {paths.skipped(name)}")


def write_checked(
    name: str,
    class_names: list[str],
    checked: Iterator[Checked],
    source: Path,
    skip_invalid: bool,
    splits: Sequence[str] = SPLITS,
) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json. Imports TensorFlow Datasets.

    Args:
        name: of the dataset.
        class_names: in the order of the labels.
        checked: each example, and what is wrong with its image or an empty string.
        source: of the images, for messages.
        skip_invalid: leave invalid images out instead of raising an error.
        splits: their names.

    Raises:
        UserError: an image is invalid and `skip_invalid` is false, or a class has no training images.
    """
    from stages.data import writer

    tally = Tally(class_names, source, skip_invalid, splits)

    def examples() -> Iterator[Example]:
        yield from tally.valid(checked)
        tally.check_classes()

    writer.write(name, class_names, splits, examples())
    tally.write(name)


def write_json(table: Any, target: Path) -> None:
    """Write a table as JSON that people can read."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
