"""Make every figure of a dataset and of its models: as files, and as views for the page. Imports TensorFlow."""

from pathlib import Path

from PIL import Image

from stages.plots import _registry
from stages.reporting import figures, images, page
from stages.reporting.results import Dataset, Model
from stages.runtime.progress import progress

COLUMNS = 4  # of misclassified images


def build(
    dataset: Dataset, models: list[Model], seed: int, folder: Path
) -> tuple[page.DatasetView, dict[str, page.ModelView]]:
    """Write the figures of a dataset and of the models that are tested on its images.

    Args:
        dataset: its counts.
        models: their results.
        seed: of the augmentation.
        folder: where each kind of figure gets a folder.

    Returns:
        The views of the dataset and, by name, of the models.
    """
    examples = images.examples(dataset.name, dataset.counts["train"])
    distribution = figures.distribution(dataset.counts)
    _write(folder / "examples" / f"{dataset.name}.jpg", figures.jpeg(figures.examples(examples)))
    _write(folder / "distribution" / f"{dataset.name}.png", figures.png(distribution))
    keys = {key for model in models for key in model.misclassified["key"]}
    test_images = images.test_images(dataset.name, keys)
    views = {
        model.name: _model(model, test_images, seed, folder)
        for model in progress(models, len(models), f"figures of {dataset.name}", "models")
    }
    return page.dataset_view(dataset, distribution, examples), views


def _model(model: Model, test_images: dict[str, Image.Image], seed: int, folder: Path) -> page.ModelView:
    """Write the figures of a model: its plots, its misclassified images, and its augmentation."""
    plots = {name: plot.figure(model.tables[name]) for name, plot in _registry.all_plots().items()}
    for name, figure in plots.items():
        _write(folder / name / f"{model.name}.png", figures.png(figure))
    tiles = [
        (test_images[row.key], figures.misclassified_caption(row.true, row.predicted, row.confidence))
        for row in model.misclassified.itertuples()
    ]
    if tiles:
        _write(folder / "misclassified" / f"{model.name}.jpg", figures.jpeg(figures.grid(tiles, COLUMNS)))
    augmented = images.augmented(model.config, seed) if model.config.augment else []
    if augmented:
        half = len(augmented) // 2
        _write(
            folder / "augmented" / f"{model.name}.jpg",
            figures.jpeg(figures.grid([(image, "") for image in augmented], half)),
        )
    return page.model_view(model, plots, test_images, augmented)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
