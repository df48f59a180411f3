"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stages.config import params
from stages.config.messages import lookup
from stages.config.parts import load_part
from stages.data import jpeg
from stages.data.checked import write_checked
from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.numerics import import_tensorflow

Examples = Callable[[Path, list[str] | dict[str, str]], Iterator[Example]]  # `examples` of a format


def preprocess(name: str) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json of a dataset.

    Raises:
        UserError: a file is not a valid image and skip_invalid_images is false, or a class has no training images.
    """
    values = params.load()
    dataset = lookup(values.archives, name, "datasets")
    import_tensorflow(gpu=False)
    examples: Examples = load_part("data.formats", dataset.format).examples
    folder = paths.raw(name)
    read = partial(examples, folder, dataset.classes)
    check = partial(_check, values.skip_invalid_images)
    with ExitStack() as stack:
        if values.engine == "ray":
            from stages.cluster.map import map_items

            checked = stack.enter_context(map_items(read, check))
        else:
            checked = map(check, read())
        write_checked(name, dataset.class_names, checked, folder, values.skip_invalid_images)


def _check(decode: bool, example: Example) -> tuple[Example, str]:
    """An example, and what is wrong with its image, or an empty string."""
    image = example[2]
    return example, jpeg.find_error(image, decode) if isinstance(image, bytes) else ""


if __name__ == "__main__":
    run(preprocess, "dataset")
