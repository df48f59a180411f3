"""reports/index.html: all results on one page that needs no other file and no network.

Jinja2 escapes every value; a figure or an image becomes a data URI.
"""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from stages.evaluation.metrics import METRICS
from stages.plots import _registry
from stages.plots._style import ALL_CLASSES, percent
from stages.reporting import figures
from stages.reporting.images import NUM_AUGMENTED, SMALL
from stages.reporting.results import Dataset, Model

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class EmbeddedImage:
    """An image of the page: its data URI, its width and height in CSS pixels, and in words what it shows."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class FigureView:
    """A figure with its heading, and a sentence below it if it shows only some classes."""

    title: str
    embedded: EmbeddedImage
    note: str


@dataclass(frozen=True)
class MisclassifiedView:
    """A misclassified image."""

    embedded: EmbeddedImage
    actual: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class ModelView:
    """The section of a model."""

    model: Model
    summary: list[str]
    metrics: dict[str, str]
    figures: list[FigureView]
    misclassified: list[MisclassifiedView]
    augmented: list[EmbeddedImage]


@dataclass(frozen=True)
class DatasetView:
    """The section of a dataset."""

    dataset: Dataset
    distribution: EmbeddedImage
    examples: dict[str, list[EmbeddedImage]]
    note: str


def render(models: list[ModelView], datasets: list[DatasetView], synthetic: list[str]) -> str:
    """The page.

    Args:
        models: in the order in which they are listed.
        datasets: likewise.
        synthetic: names of the datasets and weights that are generated.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.globals["published_range"] = published_range
    environment.globals["columns"] = {name: metric for name, metric in METRICS.items() if metric.column}
    template = environment.get_template("index.html.j2")
    return template.render(models=models, datasets=datasets, synthetic=synthetic)


def model_view(
    model: Model, plots: dict[str, Figure], images: dict[str, Image.Image], augmented: list[Image.Image]
) -> ModelView:
    """What the page shows of a model.

    Args:
        model: its results.
        plots: the figure of each plot.
        images: test images by key, at least the misclassified ones.
        augmented: an image as it is, and augmented; none for a model without augmentation.
    """
    summary, views = [], []
    for name, plot in _registry.all_plots().items():
        table = model.tables[name]
        if hasattr(plot, "summary"):
            summary.append(plot.summary(table, model.metrics, model.num_classes))
        note = plot.note(table, model.num_classes) if hasattr(plot, "note") else ""
        alt = " ".join(filter(None, [plot.description(table, model.metrics, model.num_classes), note]))
        views.append(FigureView(plot.TITLE, _figure(plots[name], alt), note))
    return ModelView(
        model=model,
        summary=summary,
        metrics=_metric_texts(model),
        figures=views,
        misclassified=[
            MisclassifiedView(
                _tile(images[row.key], f"“{row.true}”, taken for “{row.predicted}”"),
                row.true,
                row.predicted,
                row.confidence,
            )
            for row in model.misclassified.itertuples()
        ],
        augmented=[
            _tile(image, f"Augmented, {number} of {NUM_AUGMENTED}" if number else "The image as it is")
            for number, image in enumerate(augmented)
        ],
    )


def dataset_view(dataset: Dataset, distribution: Figure, examples: dict[str, list[Image.Image]]) -> DatasetView:
    """What the page shows of a dataset: its distribution, and some images of each class or of a few classes."""
    sizes = ", ".join(f"{sum(counts.values()):,} in {split}" for split, counts in dataset.counts.items())
    classes = len(dataset.counts["train"])
    return DatasetView(
        dataset=dataset,
        distribution=_figure(distribution, f"Images per class of {dataset.name} by split: {sizes}."),
        examples={name: [_tile(image, "") for image in images] for name, images in examples.items()},
        note=f"{len(examples)} of {classes:,} classes." if classes > ALL_CLASSES else "",
    )


def published_range(value: str) -> tuple[float, float] | None:
    """The lowest and the highest number of a published value such as `90.8 %` or `78–80 %`, in percent."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", value)]
    return (min(numbers), max(numbers)) if numbers else None


def _metric_texts(model: Model) -> dict[str, str]:
    """What the page lists of a model, by label."""
    texts = {
        metric.label: metric.format.format(model.metrics[name]).replace("%", "\N{NO-BREAK SPACE}%")
        for name, metric in METRICS.items()
        if metric.label
    }
    return {
        "Validation accuracy": percent(model.metrics["validation_accuracy"]),
        **texts,
        "Parameters": f"{model.metrics['parameters']:,}",
        "Computed in": model.metrics["compute_dtype"],
    }


def _figure(figure: Figure, alt: str) -> EmbeddedImage:
    document = figures.svg(figure)
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    # Quoted instead of base64, because quoting makes plain text less long
    return EmbeddedImage("data:image/svg+xml," + quote(document, safe=" !$()*+,/:;=?@[]{}|~"), width, height, alt)


def _tile(image: Image.Image, alt: str) -> EmbeddedImage:
    buffer = io.BytesIO()
    small = max(image.size) <= SMALL
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return EmbeddedImage(source, *image.size, alt)
