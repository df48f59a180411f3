"""Predictions of a saved model, a part of the test split at a time."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.config.models import PartConfig
from stages.config.plugins import load_plugin
from stages.data import reader
from stages.data.arrays import SplitArrays
from stages.evaluation.predictions import Predictions
from stages.prediction.eval_batch_size import eval_batch_size
from stages.prediction.test_time._mean import mean_prediction
from stages.runtime.files import file_hash
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import keras

PART_BYTES = 8 << 20  # of the inputs, or of the probabilities, of a part


class Facts(NamedTuple):
    """What is recorded beside predictions."""

    classes: list[str]  # class names in the order of the labels
    compute_dtype: str
    validation_images: int  # in the validation split


def predict_records(
    path: Path, dataset: str, image_size: int | None, facts: Facts, title: str, test_time: PartConfig | None
) -> Iterator[Predictions]:
    """Load a model and predict the test split of a dataset, with bounded memory.

    Args:
        path: the .keras file. No code that it may bring along is run.
        dataset: its name.
        image_size: as in `stages.data.reader.read`.
        facts: recorded in the result.
        title: start of each line of progress.
        test_time: the test-time augmentation (TTA). `build(*, options)` in a module of stages/prediction/test_time
            returns a function of the images that yields weights, which sum to 1, and views; first the images as they
            are.

    Yields:
        Predictions of some of the images, in the order of the records.
    """
    shape, dtype = reader.input_spec(dataset, "test", image_size)
    most = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 4 * len(facts.classes))

    def parts(batch_size: int) -> Iterator[SplitArrays]:
        size = max(1, PART_BYTES // most // batch_size) * batch_size
        for batch in reader.batches(dataset, "test", size, image_size):
            keys = np.array([key.decode() for key in batch["key"]], object)
            yield SplitArrays(keys, batch["input"], batch["label"].astype(np.int32))

    total = reader.info(dataset).splits["test"].num_examples
    yield from predict_parts(path, facts, title, test_time, parts, total)


def predict_parts(
    path: Path,
    facts: Facts,
    title: str,
    test_time: PartConfig | None,
    parts: Callable[[int], Iterable[SplitArrays]],
    total: int,
) -> Iterator[Predictions]:
    """Load a model and predict a split in parts; as `predict_records`, but for any split.

    Args:
        path: as in `predict_records`.
        facts: recorded in the result.
        title: as in `predict_records`.
        test_time: as in `predict_records`.
        parts: gives the parts of the split, each of a multiple of the given number of images, except for the last.
        total: number of images of the split.
    """
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    batch_size = eval_batch_size(model)
    views = load_plugin("prediction.test_time", test_time.name).build(**test_time.options) if test_time else None
    steps, model_md5 = None, file_hash(path, "md5")
    for part in parts(batch_size):
        if steps is None:
            batches = -(-total // batch_size) * (sum(1 for _ in views(part.inputs[:1])) if views else 1)
            steps = progress(itertools.repeat(None), batches, title, "batches")
            next(steps)  # the first batch begins
        forward = partial(_probabilities, model, batch_size=batch_size, steps=steps)
        if views is None:
            probabilities, first = forward(part.inputs), None
        else:
            probabilities, first = mean_prediction(views(part.inputs), forward)
        yield Predictions(
            keys=part.keys,
            true=part.labels,
            predicted=_labels(probabilities),
            probabilities=probabilities,
            classes=facts.classes,
            model_md5=model_md5,
            parameters=model.count_params(),
            compute_dtype=facts.compute_dtype,
            validation_images=facts.validation_images,
            predicted_without_tta=None if first is None else _labels(first),
        )


def _probabilities(model: "keras.Model", images: np.ndarray, batch_size: int, steps: Iterator[Any]) -> np.ndarray:
    """What a model predicts, (images, classes) float32. Each batch counts as one of `steps`."""
    import keras

    callback = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: next(steps))
    outputs = model.predict(images, batch_size=batch_size, verbose=0, callbacks=[callback])
    return np.asarray(outputs, np.float32)


def _labels(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1).astype(np.int32)
