"""Archives in data/raw → TFRecords in data/records, and a table of images per class and split."""

import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from stages import params, records
from stages.console import import_tensorflow, run
from stages.files import replacing

SPLITS = ("train", "test")

Reader = Callable[[Path, str, list[str] | dict[str, str]], Iterator[records.Example]]  # `examples` of a format


def preprocess(name: str) -> None:
    """Write the records of dataset `name`: data/records/NAME and data/counts/NAME.json."""
    dataset = params.entry(params.load().datasets, name, "datasets")
    import_tensorflow()
    examples: Reader = importlib.import_module(f"stages.formats.{dataset.format}").examples
    folder = Path("data/raw") / name
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}

    def counted(split: str) -> Iterator[records.Example]:
        for key, image, label in examples(folder, split, dataset.classes):
            counts[split][dataset.class_names[label]] += 1
            yield key, image, label

    records.write(name, dataset.class_names, {split: counted(split) for split in SPLITS})
    table = {split: {label: counts[split][label] for label in dataset.class_names} for split in SPLITS}
    with replacing(Path("data/counts") / f"{name}.json") as path:
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
    print(", ".join(f"{split}: {sum(counts[split].values()):,} images" for split in SPLITS))


if __name__ == "__main__":
    run(preprocess, "dataset")
