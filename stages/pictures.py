"""Figures of the report: from tables and images to Matplotlib figures, and from these to the bytes of a file.

Figures are drawn without pyplot, which keeps every figure in memory, and whatever matplotlibrc a user has.
"""

import io
import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

INK, MUTED, LINE = "#24292f", "#626b75", "#d5dae0"  # text, what matters less, grid
BLUE, ORANGE = "#2b66c4", "#c4620a"
# The same five where the reader's system is dark.
DARK = {INK: "#e6edf3", MUTED: "#9aa4ae", LINE: "#343b44", BLUE: "#6ba3f5", ORANGE: "#f0994a"}
FILL = "#2b66c5"  # of heatmaps: readable under white text on both
SPLITS = {"train": BLUE, "test": ORANGE}
MOSAIC, GAP = 112, 6  # pixels: about the side of an image in a picture of many, and what is between them
LONGEST = 20  # characters of a class name that fit
READABLE = 20  # classes, up to which the cells of a heatmap carry their shares

styled = style.context(
    [
        "default",
        {
            "font.size": 10,
            "text.color": INK,
            "text.parse_math": False,  # a class may have a $ in its name
            "axes.edgecolor": LINE,
            "axes.labelcolor": MUTED,
            "axes.titlesize": 10,
            "axes.titlecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": LINE,
            "grid.linewidth": 0.6,
            "xtick.color": LINE,
            "ytick.color": LINE,
            "xtick.labelcolor": MUTED,
            "ytick.labelcolor": MUTED,
            "legend.frameon": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "report",
        },
    ]
)


@styled
def curves(history: pd.DataFrame) -> Figure:
    """Accuracy and loss of every epoch, in training and in validation."""
    figure, (left, right) = _figure(5.6, 2.9, 2)
    for axes, measure in ((left, "accuracy"), (right, "loss")):
        for column, label, colour in ((measure, "training", BLUE), (f"val_{measure}", "validation", ORANGE)):
            marker = "o" if len(history) == 1 else None
            axes.plot(history["epoch"], history[column], color=colour, label=label, marker=marker)
        axes.set_title(measure, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@styled
def confusion(table: pd.DataFrame) -> Figure:
    """A heatmap of the shares of every actual class, from the table of `stages.evaluate.confusion`."""
    names = [_short(name) for name in table["actual"].unique()]
    shares = table["share"].to_numpy().reshape(len(names), len(names))
    side = min(1.5 + 0.36 * len(names), 8)
    figure, (axes,) = _figure(side + 0.5, side)
    cells = np.zeros((*shares.shape, 4))
    cells[..., :3] = to_rgb(FILL)
    cells[..., 3] = shares  # of one colour, more or less transparent: it fits any background
    axes.pcolormesh(cells, linewidth=0)
    if len(names) <= READABLE:
        for (row, column), share in np.ndenumerate(shares):
            if round(100 * share):
                colour = "white" if share > 0.75 else INK
                axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=colour, ha="center", va="center", size=9)
    positions = np.arange(len(names)) + 0.5
    axes.set_xticks(positions, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(positions, names)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="actual", ylim=(len(names), 0))
    axes.set_title("% of the actual class", loc="left")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


@styled
def classes(table: pd.DataFrame) -> Figure:
    """Precision, recall and F1 of every class, a bar each."""
    figure, panels = _figure(5.6, 0.9 + 0.21 * len(table), 3, sharey=True)
    positions = np.arange(len(table))
    for axes, column in zip(panels, ("precision", "recall", "f1"), strict=True):
        axes.barh(positions, table[column], height=0.7, color=BLUE)
        axes.set(xlim=(0, 1), ylim=(len(table) - 0.4, -0.6))
        axes.set_title("F1" if column == "f1" else column, loc="left")
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["bottom"].set_visible(False)
    panels[0].set_yticks(positions, [_short(name) for name in table["class"]])
    return figure


@styled
def reliability(table: pd.DataFrame) -> Figure:
    """Accuracy over confidence, with the diagonal, and below it the share of the images in every bin."""
    figure, (upper, lower) = _figure(5.2, 3.6, rows=2, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    weights = table["images"] / table["images"].sum()
    upper.plot(table["confidence"], table["accuracy"], color=BLUE, linewidth=1)
    upper.scatter(table["confidence"], table["accuracy"], s=10 + 190 * weights, color=BLUE, clip_on=False, zorder=3)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    lower.bar(table["low"], weights, 0.9 * (table["high"] - table["low"]), align="edge", color=BLUE)
    lower.set(xlabel="confidence", ylabel="images")
    for axes in (upper, lower):
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
    lower.yaxis.set_major_locator(MaxNLocator(2))
    return figure


@styled
def distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Images of every class, a panel for each split: {split: {class: images}}."""
    names = [_short(name) for name in next(iter(counts.values()))]
    figure, panels = _figure(5.6, 0.9 + 0.21 * len(names), len(counts), sharey=True)
    positions = np.arange(len(names))
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        axes.barh(positions, list(images.values()), height=0.7, color=SPLITS.get(split, BLUE))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_title(f"{split}: {sum(images.values()):,} images", loc="left")
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=False, axis="y")
        axes.spines["bottom"].set_visible(False)
    panels[0].set_yticks(positions, names)
    return figure


@styled
def samples(images: dict[str, list[Image.Image]]) -> Figure:
    """Images of every class, a row each, with its name before them."""
    cells = [[(image, "") for image in row] for row in images.values()]
    return _mosaic(cells, labels=[_short(name) for name in images])


@styled
def gallery(images: list[tuple[Image.Image, str]], columns: int) -> Figure:
    """Images in rows, with a caption of up to three short lines below each."""
    return _mosaic([images[start : start + columns] for start in range(0, len(images), columns)])


def mistake(actual: str, predicted: str, confidence: float) -> str:
    """The caption of an image that is taken for one of another class."""
    return f"{_short(actual)}\n→ {_short(predicted)}\n{confidence:.0%}"


@styled
def png(figure: Figure) -> bytes:
    """A figure on white, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


@styled
def jpeg(figure: Figure) -> bytes:
    """A figure of photographs as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", facecolor="white", pil_kwargs={"quality": 90, "subsampling": 0})
    return buffer.getvalue()


@styled
def svg(figure: Figure) -> str:
    """A figure as an SVG document on a transparent ground, light or dark as the reader's system is."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    document = buffer.getvalue()
    names = {colour: f"--c{number}" for number, colour in enumerate(DARK)}
    document = re.sub("|".join(names), lambda found: f"var({names[found[0]]})", document[document.index("<svg") :])
    light, dark = (
        ";".join(f"{names[colour]}:{shade}" for colour, shade in shades.items())
        for shades in ({colour: colour for colour in DARK}, DARK)
    )
    style = (
        f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "text{font-family:system-ui,sans-serif!important}</style>"
    )
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, document, count=1)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _figure(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with axes side by side, or below each other where `rows` is given."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(options.pop("rows", 1), columns, squeeze=False, **options)
    return figure, list(axes.flat)


def _mosaic(rows: list[list[tuple[Image.Image, str]]], labels: list[str] | None = None) -> Figure:
    """Captioned images in rows, drawn as one picture: an axes for each would take seconds."""
    image = next(image for row in rows for image, _ in row)
    factor = max(1, round(MOSAIC / max(image.size)))
    width, height = (factor * side for side in image.size)
    left = 170 if labels else GAP
    below = 44 if any(caption for row in rows for _, caption in row) else 0
    columns = max(map(len, rows))
    canvas = Image.new("RGB", (left + columns * (width + GAP), GAP + len(rows) * (height + below + GAP)), "white")
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
    axes.imshow(canvas, aspect="auto", interpolation="nearest")
    return figure
