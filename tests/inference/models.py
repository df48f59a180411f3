"""Small models in files, untrained: what they predict depends on the image, which is enough."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.config.models import ModelConfig
from tests.training.small import config

CNN = {"architecture": "cnn", "filters": [4], "padding": "same", "units": [8], "compute_dtype": "float32"}


def write_model(
    path: Path, classes: list[str], image_size: int = 16, channels: int = 3, policy: str = "float32", **changes: Any
) -> ModelConfig:
    """Write a convolutional network for images of this size; `changes` are keys of its entry in params.yaml."""
    import keras

    from stages.prediction.saved_model import save
    from stages.training.network import build_model

    entry = config(**{**CNN, "units": [8], **changes})
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(entry, (image_size, image_size, channels), np.dtype("uint8"), len(classes))
    finally:
        keras.config.set_dtype_policy("float32")
    signature = {
        "dataset": entry.dataset,
        "classes": classes,
        "image_size": image_size,
        "channels": channels,
        "test_time": entry.test_time and entry.test_time.model_dump(),
        "backbone": None,
    }
    save(model, path, signature)
    return entry
