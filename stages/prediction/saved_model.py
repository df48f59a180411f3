"""Save a model to a .keras file whose bytes depend on the model alone, with what is needed to use it."""

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write

if TYPE_CHECKING:
    import keras


SIGNATURE, CLASS_MEANS = "signature.json", "class_means.npy"  # further members of the .keras file; Keras ignores them
SYNTHETIC = "trained on synthetic data: its answers say nothing about real images"


def save(model: "keras.Model", path: Path, signature: dict[str, Any], class_means: np.ndarray | None = None) -> None:
    """Save `model`, which was never compiled; saving it again gives the same bytes.

    Args:
        model: with the weights to save.
        path: the .keras file to write.
        signature: what `read_signature` returns: JSON values.
        class_means: what `read_class_means` returns.
    """
    with atomic_write(path) as part, tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(part, "w") as target:
            for name in sorted(source.namelist()):
                data = source.read(name)
                if name == "metadata.json":
                    data = json.dumps({**json.loads(data), "date_saved": ""}).encode()
                elif name == "config.json":
                    data = _renumber_shared_objects(data.decode()).encode()
                target.writestr(zipfile.ZipInfo(name), data)  # the default date of ZipInfo is 1980-01-01
            target.writestr(zipfile.ZipInfo(SIGNATURE), json.dumps(signature))
            if class_means is not None:
                np.save(buffer := io.BytesIO(), class_means)
                target.writestr(zipfile.ZipInfo(CLASS_MEANS), buffer.getvalue())


def load_in(path: Path, policy: str) -> "keras.Model":
    """Load a model with its layers in another number format.

    Args:
        path: the .keras file. No code that it may bring along is run.
        policy: the Keras dtype policy of all layers but those that compute in float32 whatever the model's policy is.
    """
    import keras

    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    for saved in ("mixed_bfloat16", "mixed_float16"):
        config = config.replace(f'"{saved}"', f'"{policy}"')
    model: keras.Model = keras.saving.deserialize_keras_object(json.loads(config), safe_mode=True)
    model.load_weights(path)
    return model


def read_signature(path: Path) -> dict[str, Any]:
    """What a saved model takes and returns.

    Returns:
        classes: the names in the order of the outputs.
        dataset: the name of the dataset that it was trained on.
        source: synthetic or real: what these images are.
        kernels: the instructions that it was trained with, as in params.yaml.
        image_size: height and width of the square images that it takes; null if it takes features.
        channels: number of channels of an image.
        temperature: number by which the logarithms of its probabilities are divided.
        not_sure_below: the confidence below which its answer is "not sure"; null: it is always sure.
        none_of_these_below: the similarity to the class means below which its answer is "none of these"; absent if it
            never is.
        test_time: the part of params.yaml that augments an image for prediction, or null.
        backbone: the network whose features it takes: name, image_size, pooling, compute_dtype, and weights, the hash
            of the file; null if it takes images.
        fit: how images are fitted to the size of the model, or of its backbone, where it stands then; absent if they
            are cropped.

    Raises:
        UserError: the file is not a model of this project.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read(SIGNATURE))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(
            f"{path}: not a model of this project, or older than its signatures; train it again with `dvc repro`"
        ) from None


def read_class_means(path: Path) -> np.ndarray | None:
    """The class means of the features, float32 (classes, features); None: the model never says "none of these"."""
    with zipfile.ZipFile(path) as file:
        if CLASS_MEANS not in file.namelist():
            return None
        means: np.ndarray = np.load(io.BytesIO(file.read(CLASS_MEANS)), allow_pickle=False)
        return means


def _renumber_shared_objects(config: str) -> str:
    """Replace the memory addresses by which Keras identifies shared objects: number them in their order."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(?<="shared_object_id": )\d+', lambda found: str(numbers.setdefault(found[0], len(numbers))), config
    )
