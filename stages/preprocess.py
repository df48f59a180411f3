"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from stages.config import params
from stages.config.messages import lookup
from stages.config.plugins import load_plugin
from stages.data import jpeg
from stages.data.examples import Checked, Example, check_types
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from stages.runtime.tasks import Function, Result, Task


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
    inputs = [partial(module.examples, folder, dataset.classes)]
    check = partial(_checked, dataset.format, len(dataset.classes), skip_invalid)
    if values.engine == "local" or not hasattr(module, "inputs"):
        write_checked(name, dataset.class_names, [partial(check, read) for read in inputs], folder, skip_invalid)
        return
    from stages.cluster.connect import connected

    inputs = module.inputs(folder, dataset.classes)
    with connected():
        reads = [partial(check, read) for read in inputs]
        write_checked(name, dataset.class_names, reads, folder, skip_invalid, run=_run_on_nodes)


def _checked(module: str, classes: int, decode: bool, read: Callable[[], Iterable[Example]]) -> Iterator[Checked]:
    for example in check_types(read(), module, classes):
        image = example[2]
        yield example, jpeg.find_error(image, decode) if isinstance(image, bytes) else ""


def _run_on_nodes(tasks: list[Task], function: Function) -> Iterator[tuple[Task, Result]]:
    from stages.cluster.tasks import run_on_nodes

    return run_on_nodes(tasks, partial(_without_gpu, function), only_with_project=True)


def _without_gpu(function: Function) -> Function:
    import_tensorflow(gpu=False)
    return function


if __name__ == "__main__":
    run(preprocess, "dataset")
