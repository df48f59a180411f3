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
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from stages import gallery, pictures
from stages.results import Dataset, Model

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, its width and height in CSS pixels, and in words what it shows."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Mistake:
    """An image that is taken for one of another class."""

    picture: Picture
    actual: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class ModelView:
    """The section of a model."""

    model: Model
    summary: list[str]
    curves: Picture
    confusion: Picture
    classes: Picture
    reliability: Picture
    mistakes: list[Mistake]
    augmented: list[Picture]


@dataclass(frozen=True)
class DatasetView:
    """The section of a dataset."""

    dataset: Dataset
    distribution: Picture
    samples: dict[str, list[Picture]]


def render(models: list[ModelView], datasets: list[DatasetView], drawn: list[str]) -> str:
    """The page.

    Args:
        models: in the order in which they are listed.
        datasets: likewise.
        drawn: names of the datasets and weights that are drawn rather than fetched.
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
    return environment.get_template("index.html.j2").render(models=models, datasets=datasets, drawn=drawn)


def model_view(model: Model, images: dict[str, Image.Image], augmented: list[Image.Image]) -> ModelView:
    """What the page shows of a model.

    Args:
        model: its results.
        images: by key, those of its mistakes.
        augmented: an image as it is, and augmented; none for a model that does not augment.
    """
    last, metrics = model.history.iloc[-1], model.metrics
    ranked = _ranked(model.classes)
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    return ModelView(
        model=model,
        summary=summary(model),
        curves=_figure(
            pictures.curves(model.history),
            f"Accuracy and loss over {len(model.history)} epochs. The last one: accuracy {percent(last['accuracy'])} "
            f"in training and {percent(last['val_accuracy'])} in validation; loss {last['loss']:.3f} and "
            f"{last['val_loss']:.3f}.",
        ),
        confusion=_figure(
            pictures.confusion(model.confusion),
            f"Confusion matrix of {len(model.classes)} classes, as shares of the actual class. "
            + confused(model.confusion),
        ),
        classes=_figure(
            pictures.classes(model.classes),
            f"Precision, recall and F1 of each class. F1 is highest for “{best['class']}”, {best['f1']:.2f}, "
            f"and lowest for “{worst['class']}”, {worst['f1']:.2f}.",
        ),
        reliability=_figure(
            pictures.reliability(model.reliability),
            f"Accuracy over confidence, against the diagonal of a calibrated model. Expected calibration error "
            f"{metrics['ece']:.3f}.",
        ),
        mistakes=[
            Mistake(
                _tile(images[row.key], f"“{row.true}”, taken for “{row.predicted}”"),
                row.true,
                row.predicted,
                row.confidence,
            )
            for row in model.mistakes.itertuples()
        ],
        augmented=[
            _tile(image, f"Augmented, {number} of {gallery.WAYS}" if number else "The image as it is")
            for number, image in enumerate(augmented)
        ],
    )


def dataset_view(dataset: Dataset, samples: dict[str, list[Image.Image]]) -> DatasetView:
    """What the page shows of a dataset; `samples` are some images of each class."""
    sizes = ", ".join(f"{sum(counts.values()):,} in {split}" for split, counts in dataset.counts.items())
    return DatasetView(
        dataset=dataset,
        distribution=_figure(
            pictures.distribution(dataset.counts), f"Images of each class of {dataset.name} by split: {sizes}."
        ),
        samples={name: [_tile(image, "") for image in images] for name, images in samples.items()},
    )


def summary(model: Model) -> list[str]:
    """A few sentences: the best and the worst class, the most confused pair, the calibration."""
    ranked = _ranked(model.classes)
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    bins = model.reliability
    gap = float(np.average(bins["confidence"] - bins["accuracy"], weights=bins["images"])) * 100
    return [
        f"Recognised best: “{best['class']}” (F1 {best['f1']:.2f}); worst: “{worst['class']}” ({worst['f1']:.2f}).",
        confused(model.confusion),
        f"Confidence is {abs(gap):.1f} points {'above' if gap > 0 else 'below'} accuracy on average; "
        f"the expected calibration error is {model.metrics['ece']:.3f}.",
    ]


def confused(confusion: pd.DataFrame) -> str:
    """A sentence on the largest share of a class that is taken for another one."""
    wrong = confusion[(confusion["actual"] != confusion["predicted"]) & (confusion["count"] > 0)]
    if wrong.empty:
        return "No image is taken for one of another class."
    worst = wrong.loc[wrong["share"].idxmax()]
    return (
        f"The largest confusion: {percent(worst['share'])} of “{worst['actual']}” ({worst['count']:,} images) are "
        f"taken for “{worst['predicted']}”."
    )


def percent(share: float, digits: int = 2) -> str:
    """A share as people read it, with a space that does not break."""
    return f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def published_range(figure: str) -> tuple[float, float] | None:
    """The lowest and the highest number of a published figure such as `90.8 %` or `78–80 %`, in percent."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", figure)]
    return (min(numbers), max(numbers)) if numbers else None


def _ranked(classes: pd.DataFrame) -> pd.DataFrame:
    """The classes that have images, from the highest F1 to the lowest."""
    return classes[classes["images"] > 0].sort_values("f1", ascending=False, kind="stable")


def _figure(figure: Figure, alt: str) -> Picture:
    document = pictures.svg(figure)
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    # Quoted rather than base64: shorter, for most of it is plain text.
    return Picture("data:image/svg+xml," + quote(document, safe=" !$'()*+,/:;=?@[]{}|~"), width, height, alt)


def _tile(image: Image.Image, alt: str) -> Picture:
    buffer = io.BytesIO()
    if max(image.size) <= gallery.SMALL:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    kind = "png" if max(image.size) <= gallery.SMALL else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(source, *image.size, alt)
