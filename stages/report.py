"""All results → reports/README.md, reports/index.html and reports/pictures; the test results → MLflow.

The first is one table for Git and the eye of a reviewer; page and pictures, which DVC keeps, show the rest.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from stages import gallery, page, params, pictures, results, tracking
from stages.console import import_tensorflow, run
from stages.files import replacing

REPORTS = Path("reports")
COLUMNS = 4  # of a gallery


def report() -> None:
    """Write reports/README.md, reports/index.html and reports/pictures."""
    values = params.load()
    models, datasets = results.models(values), results.datasets(values)
    archives: dict[str, params.Dataset | params.Weights] = {**values.datasets, **values.weights}
    drawn = [name for name, entry in archives.items() if values.is_sample(entry)]
    with replacing(REPORTS / "README.md") as part:
        part.write_text(readme(models, datasets, drawn))

    import_tensorflow()
    views: dict[str, page.ModelView] = {}
    dataset_views = []
    with replacing(REPORTS / "pictures") as folder:
        for dataset in datasets:
            samples = gallery.samples(dataset.name, dataset.counts["train"])
            _write(folder / "samples" / f"{dataset.name}.jpg", pictures.jpeg(pictures.samples(samples)))
            _write(folder / "distribution" / f"{dataset.name}.png", pictures.png(pictures.distribution(dataset.counts)))
            dataset_views.append(page.dataset_view(dataset, samples))
            tested = [model for model in models if model.images_of == dataset.name]
            images = gallery.tested(dataset.name, {key for model in tested for key in model.mistakes["key"]})
            for model in tested:
                augmented = gallery.augmented(model.recipe, values.seed) if model.recipe.augment else []
                _write_pictures(folder, model, images, augmented)
                views[model.name] = page.model_view(model, images, augmented)
            print(f"pictures of {dataset.name}", flush=True)
    with replacing(REPORTS / "index.html") as part:
        part.write_text(page.render([views[model.name] for model in models], dataset_views, drawn), encoding="utf-8")
    tracking.deliver()
    print(f"reports/index.html: {len(models)} models")


def readme(models: list[results.Model], datasets: list[results.Dataset], drawn: list[str]) -> str:
    """reports/README.md.

    Args:
        models: a row each, in this order.
        datasets: likewise.
        drawn: names of the datasets and weights that are drawn rather than fetched.
    """
    sections = [
        "# Results\n\nWritten by `dvc repro` from `metrics/`; curves are in `history/`, tables behind the plots in "
        "`plots/`. After `dvc repro` or `dvc pull`, `index.html` shows all of it on one page, and `pictures/` has its "
        "figures.",
        _caution(drawn),
        "## Models\n\nAccuracy on the test split with its 95 % Wilson interval.\n\n" + model_table(models),
        *(_unseen(model.name, model.metrics) for model in models if model.metrics.get("unseen_images")),
        "## Data\n\nImages in each split, and in its smallest and largest class.\n\n" + dataset_table(datasets),
        *(
            f"`{dataset.name}`: {dataset.skipped:,} files are no images; `data/skipped/{dataset.name}.json` lists them."
            for dataset in datasets
            if dataset.skipped
        ),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def model_table(models: list[results.Model]) -> str:
    """A row for each model."""
    rows = [
        [
            f"[`{model.name}`](history/{model.name}.csv)",
            model.recipe.dataset,
            model.recipe.architecture,
            f"{model.metrics['parameters']:,}",
            model.metrics["epochs"],
            f"{model.metrics['validation_accuracy']:.2%}",
            "{accuracy:.2%} ({accuracy_low:.2%} – {accuracy_high:.2%})".format(**model.metrics),
            f"{model.metrics['macro_f1']:.3f}",
            _claim(model.published) if model.published else "",
        ]
        for model in models
    ]
    return table(
        [
            "Model",
            "Dataset",
            "Architecture",
            "Parameters",
            "Epochs",
            "Validation",
            "Test accuracy",
            "Macro-F1",
            "Published",
        ],
        rows,
    )


def dataset_table(datasets: list[results.Dataset]) -> str:
    """A row for each dataset and split: images, classes, images of the smallest and of the largest class."""
    rows = [
        [
            dataset.name,
            split,
            f"{sum(counts.values()):,}",
            len(counts),
            f"{min(counts.values()):,}",
            f"{max(counts.values()):,}",
        ]
        for dataset in datasets
        for split, counts in dataset.counts.items()
    ]
    return table(["Dataset", "Split", "Images", "Classes", "Smallest class", "Largest class"], rows)


def table(head: list[str], rows: Iterable[list[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _claim(claim: results.Claim) -> str:
    figure = f"{claim.figure} {claim.split}"
    return f"[{figure}]({claim.source})" if claim.source else figure


def _caution(drawn: list[str]) -> str:
    if not drawn:
        return ""
    return (
        f"**Drawn samples: {', '.join(drawn)}.** Accuracies on them show that the pipeline works; they say nothing of "
        "the real data and weights and cannot be compared with the published figures."
    )


def _unseen(name: str, found: dict[str, Any]) -> str:
    return (
        f"`{name}` on the {found['unseen_images']:,} test images whose names are not of ImageNet's training split, on "
        f"which its backbone was trained: {found['unseen_accuracy']:.2%}."
    )


def _write_pictures(
    folder: Path, model: results.Model, images: dict[str, Image.Image], augmented: list[Image.Image]
) -> None:
    """The pictures of a model: its confusion matrix, its mistakes, and how it augments."""
    _write(folder / "confusion" / f"{model.name}.png", pictures.png(pictures.confusion(model.confusion)))
    mistakes = [
        (images[row.key], pictures.mistake(row.true, row.predicted, row.confidence))
        for row in model.mistakes.itertuples()
    ]
    if mistakes:
        _write(folder / "mistakes" / f"{model.name}.jpg", pictures.jpeg(pictures.gallery(mistakes, COLUMNS)))
    if augmented:
        ways = [(image, "") for image in augmented]
        _write(folder / "augmented" / f"{model.name}.jpg", pictures.jpeg(pictures.gallery(ways, len(ways) // 2)))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    run(report)
