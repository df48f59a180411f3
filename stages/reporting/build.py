"""Make every figure of a dataset and of its models: as files, and embedded for the page. Imports TensorFlow."""

import functools
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from stages.data import reader
from stages.inference import overlay
from stages.plots import _registry
from stages.plots._style import MUTED, styled
from stages.reporting import explain, figures, images
from stages.reporting.drawings import draw, photographs
from stages.reporting.embed import EmbeddedImage, embed_drawing, embed_image
from stages.reporting.results import Dataset, Model
from stages.runtime.progress import progress

COLUMNS = 4  # of misclassified images
SYNTHETIC = "synthetic data"


class FigureView(NamedTuple):
    """A figure with its heading, and a sentence below it if it shows only some classes."""

    title: str
    embedded: EmbeddedImage
    note: str


class ModelView(NamedTuple):
    """What the page shows of a model."""

    model: Model
    summary: list[str]
    figures: list[FigureView]
    misclassified: list[tuple[EmbeddedImage, EmbeddedImage | None, Any]]  # heat map; row of `Model.misclassified`
    augmented: list[EmbeddedImage]


class DatasetView(NamedTuple):
    """What the page shows of a dataset."""

    dataset: Dataset
    distribution: EmbeddedImage
    examples: dict[str, list[EmbeddedImage]]  # of each class, or of a few classes


def dataset_view(dataset: Dataset, folder: Path) -> DatasetView:
    """Write the figures of a dataset to `folder`, where each kind of figure has a folder, and embed them."""
    examples = images.examples(dataset.name, list(dataset.counts["train"]))
    note = SYNTHETIC if dataset.synthetic else ""
    mosaic = photographs(lambda: figures.examples(examples, note), examples, note)
    _write(folder / f"examples/{dataset.name}.jpg", mosaic)
    distribution = draw(lambda: _titled(figures.distribution(dataset.counts), note), dataset.counts, note)
    _write(folder / f"distribution/{dataset.name}.png", distribution.png)
    sizes = ", ".join(f"{sum(counts.values()):,} in {split}" for split, counts in dataset.counts.items())
    return DatasetView(
        dataset,
        embed_drawing(distribution, f"Images per class of {dataset.name} by split: {sizes}."),
        {name: [embed_image(image, "") for image in row] for name, row in examples.items()},
    )


def model_views(models: list[Model], seed: int, folder: Path) -> list[ModelView]:
    """Write the figures of all models to `folder` and embed them. `seed` determines the augmentation."""
    keys: dict[str, set[str]] = defaultdict(set)
    for model in models:
        keys[model.image_dataset].update(model.misclassified["key"])
    test_images = {dataset: images.test_images(dataset, found) for dataset, found in keys.items()}
    heat_maps = explain.heat_maps(models)
    return [
        _model_view(model, test_images[model.image_dataset], heat_maps.get(model.name, {}), seed, folder)
        for model in progress(models, len(models), "figures", "models")
    ]


def _model_view(
    model: Model, test_images: dict[str, Image.Image], heat: explain.Heat, seed: int, folder: Path
) -> ModelView:
    summary, views = [], []
    note = SYNTHETIC if model.synthetic else ""
    for name, plot in _registry.all_plots().items():
        table = model.tables[name]
        drawing = draw(functools.partial(_plot, plot, table, note), name, table, note)
        _write(folder / f"{name}/{model.name}.png", drawing.png)
        shown = plot.note(table, model.num_classes) if hasattr(plot, "note") else ""
        alt = f"{plot.description(table, model.metrics, model.num_classes)} {shown}".strip()
        views.append(FigureView(plot.TITLE, embed_drawing(drawing, alt), shown))
        if hasattr(plot, "summary"):
            summary.append(plot.summary(table, model.metrics, model.num_classes))
    errors = [(test_images[row.key], row) for row in model.misclassified.itertuples()]
    if errors:
        tiles = [
            (image, figures.misclassified_caption(row.true, row.predicted, row.confidence)) for image, row in errors
        ]
        _write_grid(folder / f"misclassified/{model.name}.jpg", tiles, COLUMNS, note)
    augmented = images.augmented(model.config, seed) if model.config.augment else []
    if augmented:
        tiles = [(image, "") for image in augmented]
        _write_grid(folder / f"augmented/{model.name}.jpg", tiles, len(tiles) // 2, note)
    return ModelView(
        model,
        summary,
        views,
        [
            (
                embed_image(image, f"“{row.true}”, taken for “{row.predicted}”"),
                _explanation(image, heat, row, reader.fit(model.image_dataset)),
                row,
            )
            for image, row in errors
        ],
        [
            embed_image(image, f"Augmented, {number} of {images.NUM_AUGMENTED}" if number else "The image as it is")
            for number, image in enumerate(augmented)
        ],
    )


def _explanation(image: Image.Image, heat: explain.Heat, row: Any, fit: str) -> EmbeddedImage | None:
    if row.key not in heat:
        return None
    height, width = heat[row.key].shape
    scale = (min if fit == "crop" else max)(image.height / height, image.width / width)
    size = round(scale * width), round(scale * height)
    # What the model sees of it
    seen = image.resize(size) if fit == "stretch" else (ImageOps.pad if fit == "pad" else ImageOps.fit)(image, size)
    return embed_image(overlay.draw(seen, heat[row.key]), f"What speaks for “{row.predicted}” in this image")


def _plot(plot: ModuleType, table: pd.DataFrame, note: str) -> Figure:
    return _titled(plot.figure(table), note)


@styled
def _titled(figure: Figure, note: str) -> Figure:
    """A figure with a note above it."""
    if note:
        figure.suptitle(note, x=0.01, ha="left", size=8, color=MUTED)
    return figure


def _write_grid(path: Path, tiles: list[tuple[Image.Image, str]], columns: int, note: str) -> None:
    _write(path, photographs(lambda: figures.grid(tiles, columns, note), tiles, columns, note))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
