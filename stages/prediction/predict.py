"""Predict splits with a model, a part at a time."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.config.models import ModelConfig, PartConfig
from stages.config.plugins import load_plugin
from stages.data import reader
from stages.data.arrays import SplitArrays
from stages.evaluation.predictions import Predictions
from stages.prediction.calibration import fit_temperature, fit_threshold, with_temperature
from stages.prediction.eval_batch_size import eval_batch_size
from stages.prediction.forward import compile_forward
from stages.prediction.novelty import class_means, fit_limit, similarity
from stages.prediction.saved_model import read_signature
from stages.prediction.test_time._mean import mean_prediction
from stages.runtime.files import file_hash
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import keras

Parts = Callable[[int], Iterable[SplitArrays]]  # batch size → parts of a split

PART_BYTES = 8 << 20  # most bytes of a part's inputs, and of its probabilities


class Facts(NamedTuple):
    """What is recorded beside predictions."""

    classes: list[str]  # class names in the order of the labels
    compute_dtype: str
    validation_images: int  # in the validation split


def predict_records(
    path: Path, dataset: str, image_size: int | None, facts: Facts, title: str, test_time: PartConfig | None
) -> Predictions:
    """Load a model and predict the test split of a dataset; the images are read a part at a time.

    Args:
        path: the .keras file. No code that it may bring along is run.
        dataset: name of the dataset.
        image_size: height and width to which images are resized, as in `stages.data.reader.read`.
        facts: recorded in the result.
        title: start of each line of progress.
        test_time: the test-time augmentation (TTA). `build(*, options)` in a module of stages/prediction/test_time
            returns a function of the images that yields weights, which sum to 1, and views; first the images as they
            are.
    """
    parts, total = _records(dataset, "test", image_size, len(facts.classes))
    return predict_parts(path, facts, title, test_time, parts, total)


def predict_parts(
    path: Path, facts: Facts, title: str, test_time: PartConfig | None, parts: Parts, total: int
) -> Predictions:
    """Load a model and predict a split in parts; as `predict_records`, but for any split.

    Args:
        path: the model's file.
        facts: what is recorded beside the predictions.
        title: start of each line of progress.
        test_time: the test-time augmentation, or None.
        parts: gives the parts of the split, each of a multiple of the given number of images, except for the last.
        total: number of images of the split.
    """
    import keras

    model = keras.models.load_model(path, compile=False, safe_mode=True)
    signature = read_signature(path)
    temperature = signature.get("temperature", 1.0)
    found = []
    for part, each, first in _predict(model, title, test_time, parts, total):
        scaled = with_temperature(each, temperature)  # here, as it takes several times the memory of what it scales
        found.append((part.keys, part.labels, _labels(each), scaled, _labels(each if first is None else first)))
    keys, true, predicted, probabilities, without_tta = zip(*found, strict=True)
    return Predictions(
        keys=np.concatenate(keys),
        true=np.concatenate(true),
        predicted=np.concatenate(predicted),
        probabilities=np.concatenate(probabilities),
        classes=facts.classes,
        model_md5=file_hash(path, "md5"),
        parameters=model.count_params(),
        compute_dtype=facts.compute_dtype,
        validation_images=facts.validation_images,
        predicted_without_tta=np.concatenate(without_tta) if test_time else None,
        temperature=temperature,
        not_sure_below=signature.get("not_sure_below"),
    )


def calibrate(
    model: "keras.Model", dataset: str, splits: tuple[str, str], image_size: int | None, title: str, config: ModelConfig
) -> tuple[dict[str, float | None], np.ndarray | None]:
    """Predict the validation split with a trained model, to make its probabilities mean what they say.

    Args:
        model: the model.
        dataset: name of the dataset.
        splits: training and validation split, in the syntax of TFDS.
        image_size: height and width to which images are resized.
        title: start of each line of progress.
        config: the model's entry in params.yaml.

    Returns:
        `temperature`, `not_sure_below` and `none_of_these_below` of the model's signature, and its class means.
    """
    training, split = splits
    classes = model.output_shape[-1]
    parts, total = _records(dataset, split, image_size, classes)
    found = [(part.labels, each) for part, each, _ in _predict(model, title, config.test_time, parts, total)]
    labels, probabilities = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    temperature = fit_temperature(probabilities, labels)
    fitted: dict[str, float | None] = {"temperature": temperature, "not_sure_below": None}
    abstain, means = config.abstain, None
    if abstain and abstain.accuracy:
        confidence = with_temperature(probabilities, temperature).max(axis=1)
        fitted["not_sure_below"] = fit_threshold(confidence, probabilities.argmax(axis=1) == labels, abstain.accuracy)
    if abstain and abstain.none_of_these:
        means = class_means(_records(dataset, training, None, classes)[0](1), classes)
        similarities = np.concatenate([similarity(part.inputs, means) for part in parts(1)])
        fitted["none_of_these_below"] = fit_limit(similarities, abstain.none_of_these)
    return fitted, means


def _records(dataset: str, split: str, image_size: int | None, classes: int) -> tuple[Parts, int]:
    """Return what `predict_parts` takes of a split of records: its parts, and its number of images."""
    shape, dtype = reader.input_spec(dataset, split, image_size)
    most = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 4 * classes)

    def parts(batch_size: int) -> Iterator[SplitArrays]:
        size = max(1, PART_BYTES // most // batch_size) * batch_size
        for batch in reader.batches(dataset, split, size, image_size):
            keys = np.array([key.decode() for key in batch["key"]], object)
            yield SplitArrays(keys, batch["input"], batch["label"].astype(np.int32))

    return parts, reader.info(dataset).splits[split].num_examples


def _predict(
    model: "keras.Model", title: str, test_time: PartConfig | None, parts: Parts, total: int
) -> Iterator[tuple[SplitArrays, np.ndarray, np.ndarray | None]]:
    """Yield parts, their probabilities (images, classes), and with TTA those of the images as they are."""
    from stages.kernels.replacement import with_kernels

    batch_size = eval_batch_size(model)
    forward = compile_forward(with_kernels(model))
    views = load_plugin("prediction.test_time", test_time.name).build(**test_time.options) if test_time else None
    steps: Iterator[None] = iter(())

    def probabilities(images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), batch_size):
            found.append(forward(images[start : start + batch_size]).numpy())
            next(steps)
        return np.concatenate(found)

    for number, part in enumerate(parts(batch_size)):
        if not number:
            batches = -(-total // batch_size) * (sum(1 for _ in views(part.inputs[:1])) if views else 1)
            steps = progress(itertools.repeat(None), batches, title, "batches")
            next(steps)  # the first batch begins
        if views is None:
            yield part, probabilities(part.inputs), None
        else:
            yield part, *mean_prediction(views(part.inputs), probabilities)


def _labels(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1).astype(np.int32)
