"""Figures of data: class distributions, and example images in rows."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stages.plots._style import ALL_CLASSES, BLUE, MUTED, ORANGE, bars, new_figure, short, styled

SPLITS = {"train": BLUE, "validation": MUTED, "test": ORANGE}
MOSAIC, GAP = 112, 6  # pixels: about the side of an image in a grid, and the space between images
POINTS = 500  # at most, of a line


@styled
def distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Images per class, a panel for each split: {split: {class: images}}; many classes as a line by rank."""
    names = list(next(iter(counts.values())))
    many = len(names) > ALL_CLASSES
    figure, panels = new_figure(
        2.8 * len(counts), 2.9 if many else 0.9 + 0.21 * len(names), columns=len(counts), sharey=not many
    )
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        color = SPLITS.get(split, BLUE)
        sizes = list(images.values())
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


@styled
def examples(images: dict[str, list[Image.Image]], note: str = "") -> Figure:
    """A row of images for each class, with its name in front, and a note below."""
    cells = [[(image, "") for image in row] for row in images.values()]
    return _mosaic(cells, note, labels=[short(name) for name in images])


@styled
def grid(images: list[tuple[Image.Image, str]], columns: int, note: str = "") -> Figure:
    """Images in rows, with a caption of up to three short lines below each, and a note below all."""
    return _mosaic([images[start : start + columns] for start in range(0, len(images), columns)], note)


def misclassified_caption(actual: str, predicted: str, confidence: float) -> str:
    """The caption of a misclassified image."""
    return f"{short(actual)}\n→ {short(predicted)}\n{confidence:.0%}"


def _mosaic(rows: list[list[tuple[Image.Image, str]]], note: str, labels: list[str] | None = None) -> Figure:
    """Captioned images in rows, painted as one image: separate axes for each would take seconds."""
    image = next(image for row in rows for image, _ in row)
    factor = max(1, round(MOSAIC / max(image.size)))
    width, height = (factor * side for side in image.size)
    left = 190 if labels else GAP
    below = 44 if any(caption for row in rows for _, caption in row) else 0
    columns = max(map(len, rows))
    bottom = GAP + len(rows) * (height + below + GAP)
    canvas = Image.new("RGB", (left + columns * (width + GAP), bottom + (20 if note else 0)), "white")
    figure = Figure(figsize=(canvas.width / 100, canvas.height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for row, cells in enumerate(rows):
        top = GAP + row * (height + below + GAP)
        if labels:
            axes.text(left - 10, top + height / 2, labels[row], ha="right", va="center")
        for column, (image, caption) in enumerate(cells):
            start = left + column * (width + GAP)
            canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (start, top))
            if caption:
                axes.text(start + width / 2, top + height + 3, caption, ha="center", va="top", size=7.5)
    axes.text(GAP, bottom, note, va="top", size=7.5, color=MUTED)
    axes.imshow(canvas, aspect="auto", interpolation="nearest")
    return figure
