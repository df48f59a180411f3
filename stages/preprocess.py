"""Archives in data/raw → TFRecords in data/records, a table of images per class and split, and what is no image."""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stages import jpeg, params, records
from stages.console import UserError, import_tensorflow, run
from stages.files import replacing

SPLITS = ("train", "test")

Reader = Callable[[Path, list[str] | dict[str, str]], Iterator[records.Example]]  # `examples` of a format


def preprocess(name: str) -> None:
    """Write the records of dataset `name`: data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json.

    Raises:
        UserError: a file that is no image, if skip_bad_images is false; a class without training images.
    """
    values = params.load()
    dataset = params.entry(values.datasets, name, "datasets")
    import_tensorflow()
    reader: Reader = importlib.import_module(f"stages.formats.{dataset.format}").examples
    folder = Path("data/raw") / name
    read = partial(reader, folder, dataset.classes)
    check = partial(_checked, values.skip_bad_images)
    counts = {split: dict.fromkeys(dataset.class_names, 0) for split in SPLITS}
    skipped: dict[str, dict[str, str]] = {split: {} for split in SPLITS}

    def counted(examples: Iterator[tuple[records.Example, str]]) -> Iterator[records.Example]:
        for example, fault in examples:
            split, key, _, label = example
            if fault and not values.skip_bad_images:
                raise UserError(
                    f"{folder}: {split}: {key!r} {fault}; remove it, or set skip_bad_images: true in params.yaml"
                )
            if fault:
                skipped[split][key] = fault
                continue
            counts[split][dataset.class_names[label]] += 1
            yield example
        if absent := [label for label, count in counts["train"].items() if not count]:
            raise UserError(f"{folder}: class {absent[0]!r} has no training images; remove it from classes or add some")

    with ExitStack() as stack:
        if values.engine == "ray":
            from stages import cluster

            checked = stack.enter_context(cluster.mapped(read, check))
        else:
            checked = map(check, read())
        records.write(name, dataset.class_names, SPLITS, counted(checked))
    for what, table in (("counts", counts), ("skipped", skipped)):
        with replacing(Path("data") / what / f"{name}.json") as path:
            path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
    print(", ".join(f"{split}: {sum(counts[split].values()):,} images" for split in SPLITS))
    if dropped := sum(map(len, skipped.values())):
        print(f"skipped {dropped:,} files that are no images: data/skipped/{name}.json")


def _checked(decode: bool, example: records.Example) -> tuple[records.Example, str]:
    """An example, and what is wrong with its image or nothing."""
    image = example[2]
    return example, jpeg.fault(image, decode) if isinstance(image, bytes) else ""


if __name__ == "__main__":
    run(preprocess, "dataset")
