"""Make every figure of a dataset and of its models for the page. Imports TensorFlow."""

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stages.data import reader
from stages.inference import overlay
from stages.plots import _registry
from stages.plots._style import ALL_CLASSES, BLUE, MUTED, ORANGE, bars, new_figure, short, styled
from stages.reporting import explain, images
from stages.reporting.drawings import Drawing, EmbeddedImage, draw, embed_drawing, kept
from stages.reporting.images import embed_image
from stages.reporting.results import Dataset, Model
from stages.runtime.progress import progress

SYNTHETIC = "synthetic data"
SPLITS = {"train": BLUE, "validation": MUTED, "test": ORANGE}
POINTS = 500  # at most, of a line


class FigureView(NamedTuple):
    """A figure with its heading, and a sentence or two below it."""

    title: str
    embedded: EmbeddedImage
    description: str


class ModelView(NamedTuple):
    """What the page shows of a model."""

    model: Model
    figures: list[FigureView]
    misclassified: list[tuple[EmbeddedImage, EmbeddedImage | None, Any]]  # heat map; row of `Model.misclassified`
    augmented: list[EmbeddedImage]


class DatasetView(NamedTuple):
    """What the page shows of a dataset."""

    dataset: Dataset
    distribution: EmbeddedImage
    examples: dict[str, list[EmbeddedImage]]  # images by class; of many classes, a few


def dataset_view(dataset: Dataset) -> DatasetView:
    """Make the figures of a dataset."""
    examples = images.examples(dataset.name, list(dataset.counts["train"]))
    drawing = draw(_titled(distribution(dataset.counts), SYNTHETIC if dataset.synthetic else ""))
    sizes = ", ".join(f"{sum(counts.values()):,} in {split}" for split, counts in dataset.counts.items())
    return DatasetView(
        dataset,
        embed_drawing(*drawing, f"Images per class of {dataset.name} by split: {sizes}."),
        {name: [embed_image(image, "") for image in row] for name, row in examples.items()},
    )


def model_views(models: list[Model], seed: int) -> list[ModelView]:
    """Make the figures of all models. `seed` determines the augmentation."""
    keys: dict[str, set[str]] = defaultdict(set)
    for model in models:
        keys[model.image_dataset].update(model.misclassified["key"])
    test_images = {dataset: images.split_images(dataset, "test", found) for dataset, found in keys.items()}
    heat_maps = explain.heat_maps(models)
    return [
        _model_view(model, test_images[model.image_dataset], heat_maps.get(model.name, {}), seed)
        for model in progress(models, len(models), "figures", "models")
    ]


def _model_view(model: Model, test_images: dict[str, Image.Image], heat: explain.Heat, seed: int) -> ModelView:
    views = []
    for name, plot in _registry.all_plots().items():
        table = model.tables[name]
        svg, width, height = kept(_draw_plot, name, table, SYNTHETIC if model.synthetic else "")
        embedded = embed_drawing(svg, width, height, f"{plot.TITLE} of {model.name}, as the text below says")
        views.append(FigureView(plot.TITLE, embedded, plot.description(table, model.metrics, model.num_classes)))
    fit = reader.fit(model.image_dataset)
    misclassified = []
    for row in model.misclassified.itertuples():
        image = test_images[row.key]
        original = embed_image(images.thumbnail(image), f"“{row.true}”, taken for “{row.predicted}”")
        misclassified.append((original, _explanation(image, heat, row, fit), row))
    augmented = images.augmented(model.config, seed) if model.config.augment else []
    return ModelView(
        model,
        views,
        misclassified,
        [
            embed_image(image, f"Augmented, {number} of {images.NUM_AUGMENTED}" if number else "The image as it is")
            for number, image in enumerate(augmented)
        ],
    )


def _explanation(image: Image.Image, heat: explain.Heat, row: Any, fit: str) -> EmbeddedImage | None:
    if row.key not in heat:
        return None
    seen = images.as_seen(image, heat[row.key].shape, fit)
    return embed_image(overlay.draw(seen, heat[row.key]), f"What speaks for “{row.predicted}” in this image")


def _draw_plot(name: str, table: pd.DataFrame, note: str) -> Drawing:
    return draw(_titled(_registry.all_plots()[name].figure(table), note))


@styled
def _titled(figure: Figure, note: str) -> Figure:
    """A figure with a note above it."""
    if note:
        figure.suptitle(note, x=0.01, ha="left", size=8, color=MUTED)
    return figure


@styled
def distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Images per class, a panel for each split: {split: {class: images}}; many classes as a line by rank."""
    names = list(next(iter(counts.values())))
    many = len(names) > ALL_CLASSES
    figure, panels = new_figure(
        2.8 * len(counts), 2.9 if many else 0.9 + 0.21 * len(names), columns=len(counts), sharey=not many
    )
    for axes, split in zip(panels, counts, strict=True):
        color = SPLITS.get(split, BLUE)
        sizes = list(counts[split].values())
        if many:
            ranks = np.unique(np.linspace(0, len(sizes) - 1, POINTS).round().astype(int))
            axes.plot(ranks + 1, np.sort(sizes)[::-1][ranks], color=color)
            axes.set(xlabel="classes, largest first", ylabel="images", ylim=(0, None))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter("{x:,.0f}")
        else:
            bars(axes, sizes, color)
        axes.set_title(f"{split}: {sum(sizes):,} images", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if not many:
        panels[0].set_yticks(range(len(names)), [short(name) for name in names])
    return figure
