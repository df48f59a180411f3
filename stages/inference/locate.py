"""Find a model by its name or path, and the weights of its backbone."""

from pathlib import Path
from typing import Any

from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import file_hash


def find_model(name: str) -> Path:
    """The .keras file of a model.

    Args:
        name: name of a model in data/models, or path of a .keras file.

    Raises:
        UserError: there is none.
    """
    if not name:
        raise UserError("no model is given; name one, as in MODEL=mnist_cnn")
    path = Path(name)
    if path.suffix != ".keras":
        path = paths.model(name)
    if not path.is_file():
        run = f"; run `dvc repro train@{name}` or `dvc pull`" if path != Path(name) else "; check the path"
        raise UserError(f"{path}: no such model{run}")
    return path


def find_weights(backbone: dict[str, Any]) -> Path:
    """The file in data/raw with the weights of a backbone, found by its hash.

    Args:
        backbone: the entry `backbone` of a model's signature.

    Raises:
        UserError: no file has the hash.
    """
    name, (algorithm, digest) = backbone["name"], backbone["weights"].split(":")
    folder = paths.raw(name)
    for path in sorted(folder.glob("*")):
        if path.is_file() and file_hash(path, algorithm) == digest:
            return path
    raise UserError(
        f"{folder}: no file has the hash {backbone['weights']} of the weights that the model was trained with; "
        f"run `dvc repro download_weights@{name}` or `dvc pull`"
    )
