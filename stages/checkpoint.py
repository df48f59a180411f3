"""Where a training that was killed goes on: after its last finished epoch, to the bytes of one that never was.

A checkpoint is no output. It lies in DVC's folder for temporary files under a name made of all that determines the
training, so that one of other parameters, data or code is never found.
"""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.files import replacing

if TYPE_CHECKING:
    import keras

# Of the work tree: experiments in the queue have one each, so that two that are the same do not meet.
FOLDER = Path(".dvc/tmp/checkpoints")
SECONDS_BETWEEN = 10.0  # what takes less to train again is not worth the writing


@dataclass
class Progress:
    """What a training knows between two epochs, besides the variables of its model and of its optimizer."""

    rows: list[dict[str, float]] = field(default_factory=list)  # of the history, one an epoch
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)  # none where the last epoch is kept


def key(parts: Iterable[bytes | np.ndarray]) -> str:
    """A name for what determines a training: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def save(path: Path, model: "keras.Model", optimizer: "keras.Optimizer", progress: Progress) -> None:
    """Write the state of a model and of its optimizer after an epoch, whole or not at all."""
    from keras.ops import convert_to_numpy

    values = map(convert_to_numpy, _variables(model, optimizer))
    arrays: dict[str, Any] = {f"variable{number}": value for number, value in enumerate(values)}
    arrays |= {f"best{number}": weights for number, weights in enumerate(progress.best_weights)}
    rest = {"rows": progress.rows, "best_loss": progress.best_loss, "best_epoch": progress.best_epoch}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, rest=np.frombuffer(json.dumps(rest).encode(), np.uint8), **arrays)


def restore(path: Path, model: "keras.Model", optimizer: "keras.Optimizer") -> Progress:
    """Put a model and its optimizer into the state that `path` holds; no progress at all if it is absent or damaged."""
    variables = _variables(model, optimizer)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rest = json.loads(arrays["rest"].tobytes())
            values = [arrays[f"variable{number}"] for number in range(len(variables))]
            weights = [arrays[f"best{number}"] for number in range(sum(name.startswith("best") for name in arrays))]
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        return Progress()
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return Progress(best_weights=weights, **rest)


def _variables(model: "keras.Model", optimizer: "keras.Optimizer") -> "list[keras.Variable]":
    """Weights, the counters of dropout's and augmentation's random numbers, and the optimizer's moments and steps."""
    return [*model.variables, *optimizer.variables]
