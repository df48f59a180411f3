"""Your own images, where they lie → TFRecords in data/records, as `preprocess` does for archives in data/raw."""

from pathlib import Path

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import write_json
from stages.runtime.numerics import import_tensorflow


def preprocess_folder(name: str) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json.

    Raises:
        UserError: a file is not a valid image and skip_invalid_images is false, or a class has no training images.
    """
    values = params.load()
    config = lookup(values.folders, name, "folders")
    import_tensorflow(gpu=False)
    from stages.data.folders.read import checked_examples
    from stages.data.writer import write_checked

    class_names = config.as_dataset().class_names
    splits, checked = checked_examples(name, config, values.max_pixels)
    skip_invalid = values.skip_invalid_images or config.skip_invalid_images
    write_checked(name, class_names, checked, Path(config.path), skip_invalid, splits)
    if config.fit not in (None, "crop"):
        write_json(config.fit, paths.fit(name))


if __name__ == "__main__":
    run(preprocess_folder, "dataset")
