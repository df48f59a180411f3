"""The model card of a promoted model: how to use it, how good it is, what it was made from, and its limits."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from stages.config.flatten import flatten
from stages.config.schema import Params
from stages.evaluation.metrics import wilson
from stages.plots import classes
from stages.prediction.saved_model import read_signature
from stages.reporting.environments import describe
from stages.reporting.markdown import table
from stages.reporting.results import plot_table
from stages.runtime import paths
from stages.runtime.files import open_input
from stages.tracking.registry import Champion
from tools.lib.revision import Revision

UNCALIBRATED = 0.05  # expected calibration error from which the card warns


class Promotion(NamedTuple):
    """What a promotion decided: Git tag and commit of the version, the words of the gate, and MLflow's version."""

    tag: str
    commit: str
    gate: str
    version: Champion


def card(values: Params, name: str, workspace: Revision, promotion: Promotion) -> str:
    """The card in Markdown; the same promotion gives the same text.

    Args:
        values: params.yaml.
        name: the model, whose outputs lie in the workspace.
        workspace: with its metrics and its entry in dvc.lock.
        promotion: its result.
    """
    model = values.resolved_models[name]
    metrics = workspace.metrics[name]
    signature = read_signature(paths.model(name))
    dataset = values.image_dataset(name)
    scores = plot_table("classes", classes, name, len(signature["classes"]))
    with open_input(paths.environment("train", name), f"train@{name}") as file:
        environment = json.load(file)
    training = workspace.trainings[name]
    given = {key: value for key, value in flatten(training.params).items() if value is not None}
    synthetic = values.is_model_synthetic(name)
    parts = [
        f"# {name} {promotion.tag.rpartition('@')[2]}",
        f"An image classifier with {len(signature['classes'])} classes, trained on {dataset}"
        f"{' (synthetic images)' if synthetic else ''}. Architecture `{model.architecture}`, "
        f"{metrics['parameters']:,} parameters, computed in {metrics['compute_dtype']}.",
        "## Use",
        _use(signature),
        "## Results",
        _results(metrics),
        promotion.gate[0].upper() + promotion.gate[1:] + ".",
        "## Classes",
        table(list(scores), scores.itertuples(index=False), "l" + "r" * (len(scores.columns) - 1)),
        "## Data",
        *_data(values, dataset),
        "## Training",
        table(["Param", "Value"], [*given.items(), ("seed", training.seed)], "ll"),
        "## Provenance",
        table(
            ["", ""],
            [
                ["Git", f"{promotion.tag}, commit {promotion.commit}"],
                ["MLflow", f"version {promotion.version.version} of {name}, run {promotion.version.run_id}"],
                ["Model file", f"MD5 {promotion.version.model_md5}"],
                ["Computed with", describe(environment)],
                *([f"`{path}`", f"MD5 {md5}"] for path, md5 in sorted(training.deps.items())),
            ],
            "ll",
        ),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(signature, metrics, scores, synthetic)),
    ]
    return "\n\n".join(parts) + "\n"


def _use(signature: dict[str, Any]) -> str:
    if signature["backbone"]:
        backbone = signature["backbone"]
        takes = f"features of {backbone['name']} from RGB images of {backbone['image_size']} × {backbone['image_size']}"
    else:
        size = signature["image_size"]
        colors = "RGB" if signature["channels"] == 3 else "gray"
        takes = f"{colors} images, uint8, cropped to their centered square and resized to {size} × {size} pixels"
    views = (
        f" Views of test-time augmentation: `{json.dumps(signature['test_time'])}`." if signature["test_time"] else ""
    )
    return f"It takes {takes}, and returns a probability for each of: {', '.join(signature['classes'])}.{views}"


def _results(metrics: dict[str, Any]) -> str:
    head = "validation_accuracy", "validation_images", "parameters", "epochs", "compute_dtype", "images"
    test_low, test_high = wilson(metrics["accuracy"], metrics["images"])
    validated = []
    if "validation_images" in metrics:  # else all images train
        accuracy, images = metrics["validation_accuracy"], metrics["validation_images"]
        validated = [["validation accuracy", f"{accuracy:.2%}", _interval(*wilson(accuracy, images)), images]]
    rows = [
        *validated,
        ["test accuracy", f"{metrics['accuracy']:.2%}", _interval(test_low, test_high), metrics["images"]],
        *(
            [f"test {key.replace('_', ' ')}", value, "", metrics["images"]]
            for key, value in metrics.items()
            if key not in (*head, "accuracy", "accuracy_low", "accuracy_high")
        ),
    ]
    return table(["Metric", "Value", "95 % interval", "Images"], rows, "lrrr")


def _interval(low: float, high: float) -> str:
    return f"{low:.2%} – {high:.2%}"


def _data(values: Params, dataset: str) -> Iterator[str]:
    """The images of each split and class, and the audit if there is one."""
    with open_input(paths.counts(dataset), values.preprocess_stage(dataset)) as file:
        counts = json.load(file)
    yield "; ".join(f"{split}: {sum(found.values()):,} images" for split, found in counts.items()) + "."
    audit = paths.audit_metrics(dataset)
    if audit.exists():
        yield "Audit of the data:"
        yield table(["Finding", "Value"], flatten(json.loads(audit.read_text(encoding="utf-8"))).items(), "lr")


def _limits(signature: dict[str, Any], metrics: dict[str, Any], scores: pd.DataFrame, synthetic: bool) -> Iterator[str]:
    if synthetic:
        yield "Trained and measured on synthetic images: the figures say nothing about real ones."
    yield "Every image gets one of the classes, whatever it shows: there is no answer for “none of these”."
    yield "Measured on images of the same origin as the training images. Others may be harder."
    worst = scores[scores["images"] > 0].sort_values("recall", kind="stable").iloc[0]
    recall = f"recall {worst['recall']:.2%}, {worst['images']} test images"
    yield f"The class “{worst['class']}” is found least often: {recall}."
    if metrics.get("ece", 0.0) > UNCALIBRATED:
        yield f"Its probabilities are not calibrated: expected calibration error {metrics['ece']:.3f}."
    if signature["backbone"]:
        yield "The backbone's pretraining data may contain test images."
