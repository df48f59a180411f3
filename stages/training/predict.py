"""Predictions of a saved model."""

import itertools
from pathlib import Path

import numpy as np

from stages.data.reader import SplitArrays
from stages.evaluation.predictions import Predictions, md5
from stages.runtime.progress import progress
from stages.training.memory import eval_batch_size


def predict(
    path: Path, test: SplitArrays, classes: list[str], compute_dtype: str, validation_images: int, title: str
) -> Predictions:
    """Load a model and predict the test split.

    Args:
        path: the .keras file. No code that it may bring along is run.
        test: the split.
        classes: class names in the order of the labels.
        compute_dtype: recorded in the result.
        validation_images: number of images in the validation split; recorded in the result.
        title: start of each line of progress.
    """
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    batch_size = eval_batch_size(model)
    batches = -(-len(test.keys) // batch_size)
    steps = progress(itertools.repeat(None), batches, title, "batches")
    next(steps)  # the first batch begins
    callback = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: next(steps))
    outputs = model.predict(test.inputs, batch_size=batch_size, verbose=0, callbacks=[callback])
    probabilities = outputs.astype(np.float32)
    return Predictions(
        keys=test.keys,
        true=test.labels,
        predicted=probabilities.argmax(axis=1).astype(np.int32),
        probabilities=probabilities,
        classes=classes,
        model_md5=md5(path),
        parameters=model.count_params(),
        compute_dtype=compute_dtype,
        validation_images=validation_images,
    )
