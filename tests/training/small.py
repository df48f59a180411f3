"""Trainings small enough to run in seconds, on images whose classes any model learns in a few steps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.config.models import ModelConfig, PartConfig
from stages.data.arrays import SplitArrays
from stages.evaluation.predictions import Predictions
from stages.prediction.predict import Facts, predict_parts
from stages.training.loop import train_epochs
from stages.training.network import build_model

CLASSES = ["dark", "bright"]
EVERY_OPTIMIZER: dict[str, Any] = {  # of a `cnn` with one convolution and `units`: keys of its entry
    "units": [8],
    "optimizer": {"name": "adamw", "weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3},
    "schedule": {"name": "one_cycle", "warmup": 0.3, "start": 0.1, "end": 0.0, "momentum": [0.9, 0.5]},
    "groups": {
        "convolution": {
            "variables": "conv2d/kernel",
            "optimizer": {"name": "muon", "momentum": 0.6, "nesterov": True, "iterations": 3},
            "schedule": {"name": "constant"},
        },
        "kernel": {
            "variables": "dense/kernel",
            "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        },
        "biases": {
            "variables": "dense*/bias",
            "optimizer": {"name": "radam", "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3},
        },
    },
    "frozen": ["conv2d/bias"],
    "averaging": {"name": "lookahead", "every": 2, "decay": 0.5, "keep_slow": True},
}
PLACES: list[dict[str, Any]] = [
    {"name": "random_crop", "padding": 2, "mode": "reflect"},
    {"name": "alternating_flip"},
    {"name": "cutout", "size": 3},
    {"name": "random_erasing", "size": 2, "max_squares": 2},
]
MIXING: list[dict[str, Any]] = [
    {"name": "affine", "rotation": 0.1},
    {"name": "random_resized_crop", "scale": 0.3, "ratio": 1.5},
    {"name": "color_jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    {"name": "cutmix", "alpha": 1.0},
    {"name": "mixup", "alpha": 0.4},
]


def config(**changes: Any) -> ModelConfig:
    """A dense network on dark and bright images."""
    entry: dict[str, Any] = {
        "dataset": "mnist",
        "architecture": "dense",
        "units": [8],
        "optimizer": {"name": "adam"},
        "schedule": {"name": "constant"},
        "loss": {"name": "cross_entropy"},
        "learning_rate": 0.01,
        "batch_size": 16,
        "epochs": 3,
        "compute_dtype": "float32",
    }
    entry |= changes
    return ModelConfig.model_validate({key: value for key, value in entry.items() if value is not None})


def arrays(count: int = 70, seed: int = 0, side: int = 8, channels: int = 1) -> SplitArrays:
    """Dark and bright images. The last batch of 16 is not full."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.int32)
    pixels = rng.integers(0, 100, (count, side, side, channels)) + 120 * labels[:, None, None, None]
    return SplitArrays(np.array([f"{i:05d}" for i in range(count)], object), pixels.astype(np.uint8), labels)


def model_of(entry: ModelConfig, seed: int = 1) -> Any:
    """An untrained model for `arrays`."""
    import keras

    keras.utils.clear_session()  # Keras numbers the layers of a process
    keras.utils.set_random_seed(seed)
    return build_model(entry, (8, 8, 1), np.dtype("uint8"), 2)


def history_of(epochs: Iterable[tuple[int, Any]]) -> pd.DataFrame:
    """Train to the end; one row per epoch."""
    return pd.DataFrame.from_dict(dict(epochs), orient="index")


def trained(entry: ModelConfig, seed: int = 1, checkpoint: Path | None = None) -> tuple[Any, pd.DataFrame]:
    """A trained model and its history."""
    model = model_of(entry, seed)
    return model, history_of(train_epochs(model, entry, arrays(), arrays(seed=5), seed, checkpoint))


def predict(
    path: Path,
    test: SplitArrays,
    test_time: PartConfig | None = None,
    classes: list[str] = CLASSES,
    compute_dtype: str = "float32",
) -> Predictions:
    """What the model of a file predicts for a split."""
    facts = Facts(classes, compute_dtype, validation_images=10)
    return predict_parts(path, facts, "test", test_time, lambda size: [test], len(test))
