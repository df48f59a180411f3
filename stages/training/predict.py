"""Predictions of a saved model."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.config.models import PartConfig
from stages.config.parts import load_part
from stages.data.reader import SplitArrays
from stages.evaluation.predictions import Predictions
from stages.runtime.files import file_hash
from stages.runtime.progress import progress
from stages.training.memory import eval_batch_size

if TYPE_CHECKING:
    import keras

SMALLEST = np.finfo(np.float32).tiny  # probability whose logarithm is taken; a float32 softmax may give 0


def predict(
    path: Path,
    test: SplitArrays,
    classes: list[str],
    compute_dtype: str,
    validation_images: int,
    title: str,
    test_time: PartConfig | None = None,
) -> Predictions:
    """Load a model and predict the test split.

    With test-time augmentation (TTA), a prediction is the mean of the log-probabilities of all views of an image,
    which is the mean of the logits of a softmax.

    Args:
        path: the .keras file. No code that it may bring along is run.
        test: the split.
        classes: class names in the order of the labels.
        compute_dtype: recorded in the result.
        validation_images: number of images in the validation split; recorded in the result.
        title: start of each line of progress.
        test_time: the test-time augmentation. `build(*, options)` in a module of stages/training/test_time returns a
            function of the images that yields weights, which sum to 1, and views; first the images as they are.
    """
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    if test_time is None:
        probabilities, without_tta = _probabilities(model, test.inputs, title), None
    else:
        views = load_part("training.test_time", test_time.name).build(**test_time.options)
        probabilities, without_tta = _average(model, views(test.inputs), title)
    return Predictions(
        keys=test.keys,
        true=test.labels,
        predicted=_labels(probabilities),
        probabilities=probabilities,
        classes=classes,
        model_md5=file_hash(path, "md5"),
        parameters=model.count_params(),
        compute_dtype=compute_dtype,
        validation_images=validation_images,
        predicted_without_tta=without_tta,
    )


def _average(
    model: "keras.Model", views: Iterable[tuple[float, np.ndarray]], title: str
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (images, classes) from all views, and the labels that the first view alone gives."""
    total = np.zeros(1)
    predicted = []
    for number, (weight, images) in enumerate(views, 1):
        probabilities = _probabilities(model, images, f"{title}, view {number}")
        predicted.append(_labels(probabilities))
        total = total + weight * np.log(np.maximum(probabilities, SMALLEST), dtype=np.float64)
    shares = np.exp(total - total.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), predicted[0]


def _probabilities(model: "keras.Model", images: np.ndarray, title: str) -> np.ndarray:
    """What a model predicts, (images, classes) float32."""
    import keras

    batch_size = eval_batch_size(model)
    batches = -(-len(images) // batch_size)
    steps = progress(itertools.repeat(None), batches, title, "batches")
    next(steps)  # the first batch begins
    callback = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: next(steps))
    outputs = model.predict(images, batch_size=batch_size, verbose=0, callbacks=[callback])
    return np.asarray(outputs, np.float32)


def _labels(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1).astype(np.int32)
