"""Archives in data/raw → TFRecords in data/records, images per class and split, and a list of invalid images."""

from stages.config import params
from stages.config.messages import lookup
from stages.config.plugins import load_plugin
from stages.data import jpeg
from stages.data.examples import check_types
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.numerics import import_tensorflow


def preprocess(name: str) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json of a dataset.

    Raises:
        UserError: a file is not a valid image and skip_invalid_images is false, or a class has no training images.
    """
    values = params.load()
    dataset = lookup(values.archives, name, "datasets")
    module = load_plugin("data.formats", dataset.format)
    import_tensorflow(gpu=False)
    from stages.data.writer import write_checked

    folder, skip_invalid = paths.raw(name), values.skip_invalid_images
    examples = check_types(module.examples(folder, dataset.classes), dataset.format, len(dataset.classes))
    checked = (
        (example, jpeg.find_error(example[2], skip_invalid) if isinstance(example[2], bytes) else "")
        for example in examples
    )
    write_checked(name, dataset.class_names, checked, folder, skip_invalid)


if __name__ == "__main__":
    run(preprocess, "dataset")
