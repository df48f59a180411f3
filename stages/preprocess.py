"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

from collections.abc import Iterator
from typing import Any

from stages.config import params
from stages.config.datasets import DatasetConfig
from stages.config.messages import lookup
from stages.config.plugins import load_plugin
from stages.data import jpeg
from stages.data.examples import Checked, check_types
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow


def preprocess(name: str) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json of a dataset.

    Raises:
        UserError: a file is not a valid image and skip_invalid_images is false, or a class has no training images.
    """
    values = params.load()
    dataset = lookup(values.archives, name, "datasets")
    module = load_plugin("data.formats", dataset.format)
    if not hasattr(module, "examples"):
        raise UserError(
            f"stages/data/formats/{dataset.format}.py: it has no function `examples`; docs/extending.md has an example"
        )
    import_tensorflow(gpu=False)
    from stages.data.writer import write_checked

    folder, skip_invalid = paths.raw(name), values.skip_invalid_images
    examples = module.examples(folder, dataset.classes)
    write_checked(name, dataset.class_names, _checked(examples, dataset, skip_invalid), folder, skip_invalid)


def _checked(examples: Any, dataset: DatasetConfig, decode: bool) -> Iterator[Checked]:
    for example in check_types(examples, dataset.format, len(dataset.classes)):
        image = example[2]
        yield example, jpeg.find_error(image, decode) if isinstance(image, bytes) else ""


if __name__ == "__main__":
    run(preprocess, "dataset")
