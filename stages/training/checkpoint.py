"""Checkpoints: an interrupted training resumes after its last saved epoch and ends with the same bytes.

A checkpoint is not an output. It lies in DVC's folder for temporary files, under a name that is a hash of everything
that determines the training: one of other params, data, code or versions is never found. Each work tree has its own
folder, so experiments that run at the same time do not share checkpoints.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config.models import ModelConfig
from stages.runtime import paths
from stages.runtime.files import atomic_write
from stages.runtime.identity import digest

if TYPE_CHECKING:
    import keras

SECONDS_BETWEEN = 10.0  # between two checkpoints: less work than that is not worth the writing


@dataclass
class TrainState:
    """State of a training between two epochs, besides the variables of the model, optimizer and augmentations."""

    rows: list[dict[str, float]] = field(default_factory=list)  # of the history, one per epoch
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)  # empty if the last epoch is kept


def checkpoint_path(
    name: str,
    config: ModelConfig,
    environment: Mapping[str, str],
    seed: int,
    data: str,
) -> Path:
    """The checkpoint of a training; its name covers everything that determines the result.

    Args:
        name: the model.
        config: its resolved configuration.
        environment: result of `stages.runtime.numerics.environment`.
        seed: the training's seed.
        data: result of `stages.runtime.identity.data_identity`.
    """
    facts = {"config": config.model_dump(mode="json"), "environment": dict(environment), "seed": seed}
    code = [path.read_bytes() for path in code_files(config)]
    return paths.CHECKPOINTS / f"{name}-{digest([json.dumps(facts).encode(), *code, data.encode()])}.npz"


def code_files(config: ModelConfig) -> list[Path]:
    """The modules that can change a training with given records."""
    stages = Path(__file__).parents[1]
    others = [stages / "models" / f"{config.architecture}.py", stages / "runtime" / "numerics.py"]
    others += [stages / "prediction" / "eval_batch_size.py"]
    others += [stages / "data" / f"{module}.py" for module in ("reader", "arrays")]
    folders = [stages / "training", stages / "kernels"]
    return [*(file for folder in folders for file in sorted(folder.rglob("*.py"))), *others]


def save(path: Path, variables: "list[keras.Variable]", state: TrainState) -> None:
    """Write the state of a training after an epoch, whole or not at all."""
    from keras.ops import convert_to_numpy

    arrays: dict[str, Any] = {f"variable{number}": convert_to_numpy(value) for number, value in enumerate(variables)}
    arrays |= {f"best{number}": weights for number, weights in enumerate(state.best_weights)}
    rest = {"rows": state.rows, "best_loss": state.best_loss, "best_epoch": state.best_epoch}
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, rest=np.frombuffer(json.dumps(rest).encode(), np.uint8), **arrays)


def restore(path: Path, variables: "list[keras.Variable]") -> TrainState:
    """Assign what a checkpoint holds to `variables`; return a new state if it is missing or corrupt."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rest = json.loads(arrays["rest"].tobytes())
            values = [arrays[f"variable{number}"] for number in range(len(variables))]
            weights = [arrays[f"best{number}"] for number in range(sum(name.startswith("best") for name in arrays))]
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        return TrainState()
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return TrainState(best_weights=weights, **rest)


def remove_others(path: Path, name: str) -> None:
    """Remove checkpoints of earlier trainings of the model `name`, of other params, data or code, except the newest.

    The newest may be that of a long training, interrupted for an experiment. DVC runs a stage once at a time in a work
    tree: no other training of this model can be using them.
    """
    for part in path.parent.glob(f".{name}-*.npz.part"):  # what a killed process was writing
        part.unlink(missing_ok=True)
    others = [other for other in path.parent.glob(f"{name}-*.npz") if other != path]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-1]:
        other.unlink(missing_ok=True)
