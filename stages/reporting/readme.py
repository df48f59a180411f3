"""reports/README.md: the results as tables for Git and for the eye of a reviewer."""

from typing import Any

from stages.evaluation.metrics import METRICS
from stages.reporting.markdown import table
from stages.reporting.results import Dataset, Model, PublishedResult


def render(models: list[Model], datasets: list[Dataset], synthetic: list[str]) -> str:
    """The whole file.

    Args:
        models: one row each, in this order.
        datasets: likewise.
        synthetic: names of the datasets and weights that are generated.
    """
    sections = [
        "# Results\n\n`dvc repro` writes this file from `metrics/`; `history/` has the curves, and `plots/` the tables "
        "behind the plots. After `dvc repro` or `dvc pull`, `index.html` shows everything on one page, and `figures/` "
        "has its figures.",
        caution(synthetic),
        "## Models\n\nAccuracy on the test split with its 95 % Wilson interval.\n\n" + model_table(models),
        *(_not_in_pretraining(model) for model in models if model.metrics.get("not_in_pretraining_images")),
        "## Data\n\nImages per split, and in its smallest and its largest class.\n\n" + dataset_table(datasets),
        *(
            f"`{dataset.name}`: {dataset.skipped:,} files are not valid images; `data/skipped/{dataset.name}.json` "
            "lists them."
            for dataset in datasets
            if dataset.skipped
        ),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def caution(synthetic: list[str]) -> str:
    """What readers must know about accuracies on synthetic data; nothing if there are none."""
    if not synthetic:
        return ""
    return (
        f"**Synthetic data: {', '.join(synthetic)}.** Accuracies on them show that the pipeline works; they say "
        "nothing about real data and weights, and no published result stands beside them."
    )


def model_table(models: list[Model]) -> str:
    """A row for each model."""
    columns = {name: metric for name, metric in METRICS.items() if metric.column}
    head = ["Model", "Dataset", "Architecture", "Parameters", "Epochs", "Validation", "Test accuracy"]
    rows = [
        [
            f"[`{model.name}`](history/{model.name}.csv)",
            model.config.dataset,
            model.config.architecture,
            f"{model.metrics['parameters']:,}",
            model.metrics["epochs"],
            f"{model.metrics['validation_accuracy']:.2%}",
            "{accuracy:.2%} ({accuracy_low:.2%} – {accuracy_high:.2%})".format(**model.metrics),
            *(metric.format.format(model.metrics[name]) for name, metric in columns.items()),
            _published(model.published) if model.published else "",
        ]
        for model in models
    ]
    return table([*head, *(metric.label for metric in columns.values()), "Published"], rows)


def dataset_table(datasets: list[Dataset]) -> str:
    """A row for each dataset and split: images, classes, images of the smallest and of the largest class."""
    rows: list[list[Any]] = [
        [
            dataset.name,
            split,
            f"{sum(counts.values()):,}",
            f"{len(counts):,}",
            f"{min(counts.values()):,}",
            f"{max(counts.values()):,}",
        ]
        for dataset in datasets
        for split, counts in dataset.counts.items()
    ]
    return table(["Dataset", "Split", "Images", "Classes", "Smallest class", "Largest class"], rows)


def _published(published: PublishedResult) -> str:
    text = f"{published.value} {published.split}"
    return f"[{text}]({published.source})" if published.source else text


def _not_in_pretraining(model: Model) -> str:
    return (
        f"`{model.name}` on the {model.metrics['not_in_pretraining_images']:,} test images that are not in the "
        f"pretraining data of its backbone: {model.metrics['not_in_pretraining_accuracy']:.2%}."
    )
