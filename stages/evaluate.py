"""Evaluate a model: predictions on the test split → metrics, and the tables behind the plots, without TensorFlow."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, open_input, write_json

if TYPE_CHECKING:
    from stages.config.models import ModelConfig
    from stages.evaluation.predictions import Predictions

SOFTMAX_ERROR = 0.05  # most by which an image's probabilities may miss 1; in bfloat16 it is 0.01


def evaluate(name: str) -> None:
    """Write reports/metrics/NAME.json and the table of each plot."""
    config = params.load()
    model = lookup(config.resolved_models, name, "models")

    from stages.evaluation import metrics, predictions
    from stages.plots import _registry

    predicted = predictions.read(name)
    check_probabilities(name, predicted, model.architecture)
    epochs, validation_accuracy = read_history(name, model)
    test_metrics = metrics.compute(predicted)
    pretraining = config.not_in_pretraining.get(config.image_dataset(name))
    if pretraining and config.model_features(name):
        test_metrics |= metrics.not_in_pretraining(predicted, pretraining.files)
    validated: dict[str, Any] = {}
    if validation_accuracy is not None:
        validated = {"validation_accuracy": validation_accuracy, "validation_images": predicted.validation_images}
    values = {
        **test_metrics,
        **validated,
        "parameters": predicted.parameters,
        "epochs": epochs,
        "compute_dtype": predicted.compute_dtype,
    }
    write_json(values, paths.metrics(name))
    for plot, table in _registry.tables(predicted).items():
        with atomic_write(paths.plot(plot, name)) as part:
            table.to_csv(part, index=False)
    low, high = test_metrics["accuracy_low"], test_metrics["accuracy_high"]
    accuracy, images = test_metrics["accuracy"], test_metrics["images"]
    print(f"{name}: test accuracy {accuracy:.2%} ({low:.2%} to {high:.2%}) on {images:,} images")


def check_probabilities(name: str, predicted: "Predictions", architecture: str) -> None:
    """Raise a `UserError` if what a model returns for an image does not look like the output of a softmax."""
    sums = predicted.probabilities.sum(axis=1)
    if not (finite := np.isfinite(sums)).all():
        key = predicted.keys[int(np.argmin(finite))]
        raise UserError(
            f"{paths.PARAMS}: models.{name}: its probabilities for test image {key!r} are not finite: the network "
            "overflows; lower its learning_rate or set its compute_dtype to float32, and train it again"
        )
    if (predicted.probabilities < 0).any() or (abs(sums - 1) > SOFTMAX_ERROR).any():
        raise UserError(
            f"stages/models/{architecture}.py: its outputs are no probabilities: those of an image sum to "
            f"{sums.min():.3g} to {sums.max():.3g}; end it with a softmax in float32"
        )


def read_history(name: str, model: "ModelConfig") -> tuple[int, float | None]:
    """Number of epochs of a training, and the validation accuracy of the epoch whose weights were saved, if any."""
    import pandas as pd

    from stages.evaluation.metrics import DIGITS

    with open_input(paths.history(name), f"train@{name}") as file:
        history = pd.read_csv(file, index_col="epoch", dtype={"val_loss": float, "val_accuracy": float})
        if {"accuracy", "val_accuracy", "val_loss"}.intersection(history) == {"accuracy"}:  # all images train
            return len(history), None
        saved, best = history.index[-1], math.inf
        for epoch, loss in history["val_loss"].items() if model.restore_best else ():
            if loss < best - model.min_improvement:  # as in `train_epochs`
                saved, best = epoch, loss
        return len(history), round(float(history.loc[saved, "val_accuracy"]), DIGITS)


if __name__ == "__main__":
    run(evaluate, "model")
