"""Small models in files, untrained: what they predict depends on the image, which is enough."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.config.models import ModelConfig
from tests.training.small import config

CNN = {"architecture": "cnn", "filters": [4], "padding": "same", "units": [8], "compute_dtype": "float32"}


def write_model(
    path: Path,
    classes: list[str],
    image_size: int | tuple[int, int] = 16,
    channels: int = 3,
    policy: str = "float32",
    gain: float = 1,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> ModelConfig:
    """Write a convolutional network for images of this height and width.

    Args:
        path: the file.
        classes: their names.
        image_size: height and width.
        channels: number of channels of an image.
        policy: the number format.
        gain: factor of the initial weights; the larger, the surer the model is.
        facts: further values of its signature.
        changes: keys of its entry in params.yaml.
    """
    import keras

    from stages.prediction.saved_model import save
    from stages.training.network import build_model

    shape = (*((image_size, image_size) if isinstance(image_size, int) else image_size), channels)
    entry = config(**{**CNN, **changes})
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(entry, shape, np.dtype("uint8"), len(classes))
        model.set_weights([gain * weights for weights in model.get_weights()])
    finally:
        keras.config.set_dtype_policy("float32")
    signature = {
        "dataset": entry.dataset,
        "classes": classes,
        "image_size": shape[0],
        "channels": channels,
        "test_time": entry.test_time and entry.test_time.model_dump(),
        "backbone": None,
    }
    save(model, path, signature | (facts or {}))
    return entry
