"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stages.config import params
from stages.config.messages import lookup
from stages.config.parts import load_part
from stages.data import jpeg
from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.numerics import import_tensorflow

Examples = Callable[[Path, list[str] | dict[str, str]], Iterator[Example]]  # `examples` of a format

SPLITS = ("train", "test")


def preprocess(name: str) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json of a dataset.

    Raises:
        UserError: a file is not a valid image and skip_invalid_images is false, or a class has no training images.
    """
    values = params.load()
    dataset = lookup(values.datasets, name, "datasets")
    import_tensorflow(gpu=False)
    from stages.data import writer

    examples: Examples = load_part("data.formats", dataset.format).examples
    folder = paths.raw(name)
    read = partial(examples, folder, dataset.classes)
    check = partial(_check, values.skip_invalid_images)
    counts = {split: dict.fromkeys(dataset.class_names, 0) for split in SPLITS}
    skipped: dict[str, dict[str, str]] = {split: {} for split in SPLITS}

    def valid(checked: Iterator[tuple[Example, str]]) -> Iterator[Example]:
        for example, error in checked:
            split, key, _, label = example
            if error and not values.skip_invalid_images:
                raise UserError(
                    f"{folder}: {split}: {key!r} {error}; remove it, or set skip_invalid_images: true in params.yaml"
                )
            if error:
                skipped[split][key] = error
                continue
            counts[split][dataset.class_names[label]] += 1
            yield example
        if absent := [label for label, count in counts["train"].items() if not count]:
            raise UserError(f"{folder}: class {absent[0]!r} has no training images; remove it from classes or add some")

    with ExitStack() as stack:
        if values.engine == "ray":
            from stages.cluster.map import map_items

            checked = stack.enter_context(map_items(read, check))
        else:
            checked = map(check, read())
        writer.write(name, dataset.class_names, SPLITS, valid(checked))
    for table, target in ((counts, paths.counts(name)), (skipped, paths.skipped(name))):
        with atomic_write(target) as path:
            path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
    print(", ".join(f"{split}: {sum(counts[split].values()):,} images" for split in SPLITS))
    if number := sum(map(len, skipped.values())):
        print(f"skipped {number:,} files that are not valid images: {paths.skipped(name)}")


def _check(decode: bool, example: Example) -> tuple[Example, str]:
    """An example, and what is wrong with its image, or an empty string."""
    image = example[2]
    return example, jpeg.find_error(image, decode) if isinstance(image, bytes) else ""


if __name__ == "__main__":
    run(preprocess, "dataset")
