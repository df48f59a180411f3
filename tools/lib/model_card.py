"""The model card of a promoted model: how to use it, how good it is, what it was made from, and its limits."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

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
from tools.lib.revision import Revision

UNCALIBRATED = 0.05  # expected calibration error from which the card warns
NO_RESULTS = {"accuracy_low", "accuracy_high", "parameters", "epochs", "compute_dtype", "images", "validation_images"}


class Promotion(NamedTuple):
    """What a promotion decided: names in Git and in MLflow, and the words of the gate."""

    tag: str
    commit: str
    gate: str
    version: str
    run_id: str
    model_md5: str


def card(values: Params, name: str, workspace: Revision, promotion: Promotion) -> str:
    """The card in Markdown; the same promotion gives the same text.

    Args:
        values: params.yaml.
        name: the model, whose outputs lie in the workspace.
        workspace: the revision with its metrics and its entry in dvc.lock.
        promotion: what the promotion decided.
    """
    metrics, training, dataset = workspace.metrics[name], workspace.trainings[name], values.image_dataset(name)
    with open_input(paths.environment("train", name), f"train@{name}") as file:
        computed_with = describe(json.load(file))
    signature = read_signature(paths.model(name))
    scores = plot_table("classes", classes, name, len(signature["classes"]))
    audit = paths.audit_metrics(dataset)
    given = {key: value for key, value in flatten(training.params).items() if value is not None}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("model_card.md.j2").render(
        name=name,
        promotion=promotion,
        model=values.resolved_models[name],
        metrics=metrics,
        signature=signature,
        dataset=dataset,
        synthetic=values.is_model_synthetic(name),
        scores=scores,
        worst=scores[scores["images"] > 0].sort_values("recall", kind="stable").iloc[0],
        counts=counts(values, dataset),
        audit=flatten(json.loads(audit.read_text(encoding="utf-8"))) if audit.exists() else {},
        given={**given, "seed": training.seed},
        results=_results(metrics),
        provenance=[
            ["Git", f"{promotion.tag}, commit {promotion.commit}"],
            ["MLflow", f"version {promotion.version} of {name}, run {promotion.run_id}"],
            ["Model file", f"MD5 {promotion.model_md5}"],
            ["Computed with", computed_with],
            *([f"`{path}`", f"MD5 {md5}"] for path, md5 in sorted(training.deps.items())),
        ],
        uncalibrated=UNCALIBRATED,
        table=table,
    )


def counts(values: Params, dataset: str) -> dict[str, dict[str, int]]:
    """The images of each class of each split of a dataset."""
    with open_input(paths.counts(dataset), values.preprocess_stage(dataset)) as file:
        found: dict[str, dict[str, int]] = json.load(file)
    return found


def _results(metrics: dict[str, Any]) -> list[list[Any]]:
    """A row for each metric: name, value, interval, images."""
    rows = []
    for key, value in sorted(metrics.items(), key=lambda item: not item[0].startswith("validation")):
        split, metric = ("validation", key.removeprefix("validation_")) if "validation" in key else ("test", key)
        images = metrics["validation_images" if split == "validation" else "images"]
        if metric == "accuracy":
            low, high = wilson(value, images)
            rows.append([f"{split} accuracy", f"{value:.2%}", f"{low:.2%} – {high:.2%}", images])
        elif key not in NO_RESULTS:
            rows.append([f"{split} {metric.replace('_', ' ')}", value, "", images])
    return rows
