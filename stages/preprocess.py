"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stages.config import params
from stages.config.messages import lookup
from stages.config.plugins import load_plugin
from stages.data import jpeg
from stages.data.checked import Checked, Tally, write_checked
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
    module = load_plugin("data.formats", dataset.format)
    examples: Examples = module.examples
    folder = paths.raw(name)
    class_names, skip_invalid = dataset.class_names, values.skip_invalid_images
    check = partial(_check, skip_invalid)
    if values.engine == "local":
        write_checked(name, class_names, map(check, examples(folder, dataset.classes)), folder, skip_invalid)
    elif hasattr(module, "inputs"):
        from stages.cluster.connect import connected
        from stages.cluster.tasks import run_on_nodes
        from stages.data.sharded_writer import write_parts

        inputs = [partial(_read, check, read) for read in module.inputs(folder, dataset.classes)]
        with connected():
            run = partial(run_on_nodes, only_with_project=True)
            write_parts(name, Tally(class_names, folder, skip_invalid), inputs, run)
    else:
        from stages.cluster.map import map_items

        with map_items(partial(examples, folder, dataset.classes), check) as checked:
            write_checked(name, class_names, checked, folder, skip_invalid)


def _read(check: Callable[[Example], Checked], read: Callable[[], Iterator[Example]]) -> Iterator[Checked]:
    return map(check, read())


def _check(decode: bool, example: Example) -> Checked:
    image = example[2]
    return example, jpeg.find_error(image, decode) if isinstance(image, bytes) else ""


if __name__ == "__main__":
    run(preprocess, "dataset")
