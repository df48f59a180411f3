"""Predictions of a saved model → metrics and the tables behind the plots. Arithmetic only: no TensorFlow here.

The model was loaded from disk and run on the test split by `stages.train`, which has TensorFlow loaded anyway.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from stages import params, tracking
from stages.console import run
from stages.files import reading, replacing

CALIBRATION_BINS = 15
DIGITS = 6  # what float32 probabilities carry, and what a reviewer can read in a diff


def evaluate(name: str) -> None:
    """Write reports/metrics/NAME.json and reports/plots/{confusion,classes,reliability}/NAME.csv."""
    recipe = params.entry(params.load().models, name, "models")
    path = Path("data/predictions") / f"{name}.parquet"
    with reading(path, f"train@{name}") as file:
        predictions = pd.read_parquet(file, page_checksum_verification=True)
        model, parameters, precision = (predictions.attrs[key] for key in ("model", "parameters", "precision"))
    with reading(Path("reports/history") / f"{name}.csv", f"train@{name}") as file:
        history = pd.read_csv(file, index_col="epoch", dtype={"val_loss": float, "val_accuracy": float})
        kept = history["val_loss"].idxmin() if recipe.restore_best else history.index[-1]
        validation_accuracy = round(float(history.loc[kept, "val_accuracy"]), DIGITS)
    tested = {**metrics(predictions), **unseen(predictions, recipe.unseen_prefix)}
    values = {
        **tested,
        "validation_accuracy": validation_accuracy,
        "parameters": parameters,
        "epochs": len(history),
        "precision": precision,
    }
    with replacing(Path("reports/metrics") / f"{name}.json") as part:
        part.write_text(json.dumps(values, indent=2) + "\n")
    plots = []
    for plot in (confusion, classes, reliability):
        plots.append(Path("reports/plots") / plot.__name__ / f"{name}.csv")
        with replacing(plots[-1]) as part:
            plot(predictions).to_csv(part, index=False)
    tracking.evaluation(name, recipe.dataset, model, tested, plots)
    low, high = values["accuracy_low"], values["accuracy_high"]
    print(f"{name}: test accuracy {values['accuracy']:.2%} ({low:.2%} to {high:.2%}) on {values['images']:,} images")


def metrics(predictions: pd.DataFrame) -> dict[str, Any]:
    """Measures of a model on its test split.

    Returns:
        images: their number. accuracy: with accuracy_low and accuracy_high, its 95 % Wilson interval (Wilson, "Probable
        inference", 1927). loss: mean cross-entropy in nats. macro_f1: mean F1 of the classes that occur. top3_accuracy.
        ece: expected calibration error over 15 bins of equal width (Guo et al., "On calibration", 2017).
    """
    true, predicted = predictions["true"].cat.codes.to_numpy(), predictions["predicted"].cat.codes.to_numpy()
    probabilities = _probabilities(predictions)
    labels = np.arange(probabilities.shape[1])
    right = true == predicted
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    return {
        "images": len(right),
        "accuracy": round(float(right.mean()), DIGITS),
        "accuracy_low": round(float(interval.low), DIGITS),
        "accuracy_high": round(float(interval.high), DIGITS),
        "loss": round(
            float(log_loss(true, probabilities / probabilities.sum(1, keepdims=True), labels=labels)), DIGITS
        ),
        "macro_f1": round(float(f1_score(true, predicted, average="macro")), DIGITS),
        "top3_accuracy": round(top3_accuracy(true, probabilities), DIGITS),
        "ece": round(calibration_error(calibration(probabilities.max(axis=1), right)), DIGITS),
    }


def top3_accuracy(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of images whose class is among the three most probable: 1 where there are no more than three classes."""
    classes = probabilities.shape[1]
    if classes <= 3:
        return 1.0
    return float(top_k_accuracy_score(true, probabilities, k=3, labels=np.arange(classes)))


def calibration(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """A row for each of 15 bins of confidence, of equal width, that holds any images.

    Args:
        confidence: (n,) probability of the predicted class.
        right: (n,) whether the prediction is right.

    Returns:
        low, high: the bin's borders. confidence and accuracy: means of its images. images: their number.
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    images = np.bincount(bins, minlength=CALIBRATION_BINS)
    borders = np.linspace(0, 1, CALIBRATION_BINS + 1)
    table = pd.DataFrame({"low": borders[:-1], "high": borders[1:], "images": images})
    for column, values in (("confidence", confidence), ("accuracy", right)):
        table[column] = np.bincount(bins, values, CALIBRATION_BINS) / np.maximum(images, 1)
    return table.loc[images > 0, ["low", "high", "confidence", "accuracy", "images"]]


def calibration_error(bins: pd.DataFrame) -> float:
    """Mean distance between confidence and accuracy over the bins of `calibration`, weighted by their images."""
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["images"]))


def unseen(predictions: pd.DataFrame, prefix: str | None) -> dict[str, Any]:
    """Accuracy and number of the test images whose file names begin with `prefix`; nothing without a prefix.

    The backbone of a feature set has been trained on some of the test images: these are the others.
    """
    if prefix is None:
        return {}
    chosen = predictions[predictions["key"].str.rsplit("/", n=1).str[-1].str.startswith(prefix)]
    if chosen.empty:
        return {"unseen_images": 0}
    accuracy = float((chosen["true"] == chosen["predicted"]).mean())
    return {"unseen_images": len(chosen), "unseen_accuracy": round(accuracy, DIGITS)}


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of classes: actual, predicted, count, and share of the actual class (0 for an absent one)."""
    classes = list(predictions["true"].cat.categories)
    counts = confusion_matrix(predictions["true"], predictions["predicted"], labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    actual, predicted = np.meshgrid(classes, classes, indexing="ij")
    return pd.DataFrame(
        {
            "actual": actual.ravel(),
            "predicted": predicted.ravel(),
            "count": counts.ravel(),
            "share": shares.ravel().round(4),
        }
    )


def classes(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row for each class: precision, recall, f1 (0 where they are not defined), and the number of its images."""
    names = list(predictions["true"].cat.categories)
    precision, recall, f1, images = precision_recall_fscore_support(
        predictions["true"], predictions["predicted"], labels=names, zero_division=0
    )
    table = pd.DataFrame({"class": names, "precision": precision, "recall": recall, "f1": f1, "images": images})
    return table.round(4)


def reliability(predictions: pd.DataFrame) -> pd.DataFrame:
    """The bins of `calibration`: how often a model is right when it is so confident."""
    right = (predictions["true"] == predictions["predicted"]).to_numpy()
    return calibration(_probabilities(predictions).max(axis=1), right).round(4)


def _probabilities(predictions: pd.DataFrame) -> np.ndarray:
    """All of them as an array (images, classes) of float64."""
    return np.stack(predictions["probabilities"].tolist()).astype(float)


if __name__ == "__main__":
    run(evaluate, "model")
