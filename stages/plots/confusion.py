"""Confusion matrix; of many classes, the ones that are confused most often."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.evaluation.predictions import Predictions
from stages.plots._style import ALL_CLASSES, FILL, INK, SOME_CLASSES, new_figure, percent, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Confusion"
ORDER = 20
COLUMNS = {"actual": str, "predicted": str, "count": int, "share": float}
LABELED_CLASSES = 20  # up to so many classes the cells carry their shares


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each pair of classes: actual, predicted, count, and share of the actual class (0 if it is absent).

    Of more than 40 classes, only the 20 that belong to the most confused pairs have rows.
    """
    size = len(predictions.classes)
    images = np.bincount(predictions.true, minlength=size)
    pairs = pd.DataFrame({"actual": predictions.true, "predicted": predictions.predicted})
    counts = pairs.groupby(["actual", "predicted"]).size()
    found = counts.reset_index(name="count")
    most = _most_confused(found.assign(share=found["count"] / images[found["actual"]]), ["count", "share"])
    confused = most[["actual", "predicted"]].to_numpy().ravel().tolist()
    shown = size if size <= ALL_CLASSES else SOME_CLASSES
    chosen = sorted(list(dict.fromkeys([*confused, *range(size)]))[:shown])
    index = pd.MultiIndex.from_product([chosen, chosen], names=["actual", "predicted"])
    rows = counts.reindex(index, fill_value=0).reset_index(name="count")
    share = (rows["count"] / np.maximum(images[rows["actual"]], 1)).round(4)
    names = np.array(predictions.classes, object)
    return rows.assign(actual=names[rows["actual"]], predicted=names[rows["predicted"]], share=share)


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """A heatmap of the shares of every actual class."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    names = [short(name) for name in table["actual"].unique()]
    shares = table["share"].to_numpy().reshape(len(names), len(names))
    side = min(1.5 + 0.36 * len(names), 8)
    figure, (axes,) = new_figure(side + 0.5, side)
    rows, columns = np.nonzero(shares >= 0.005)
    corners = np.stack((columns, rows), axis=1)[:, None] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    # One color, more or less transparent, fits any background
    colors = [(*to_rgb(FILL), share) for share in shares[rows, columns]]
    axes.add_collection(PolyCollection(corners, facecolors=colors, linewidths=0, antialiaseds=False))
    if len(names) <= LABELED_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            if round(100 * share):
                color = "white" if share > 0.75 else INK
                axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=color, ha="center", va="center", size=9)
    positions = np.arange(len(names)) + 0.5
    axes.set_xticks(positions, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(positions, names)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="actual", xlim=(0, len(names)), ylim=(len(names), 0))
    axes.set_title("% of the actual class", loc="left")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """The largest confusion: by share; of many classes, of which some have few images, by count."""
    many = num_classes > ALL_CLASSES
    shown = f" Of {num_classes:,} classes: the {SOME_CLASSES} that are confused most often." if many else ""
    wrong = _most_confused(table, ["count", "share"] if many else ["share"])
    if wrong.empty:
        return f"No image is taken for one of another class.{shown}"
    worst = wrong.iloc[0]
    images = "image" if worst["count"] == 1 else "images"
    return (
        f"The largest confusion: {percent(worst['share'])} of “{worst['actual']}” ({worst['count']:,} {images}) are "
        f"taken for “{worst['predicted']}”.{shown}"
    )


def _most_confused(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The pairs of different classes that occur, from the most confused."""
    wrong = table[(table["actual"] != table["predicted"]) & (table["count"] > 0)]
    return wrong.sort_values(by, ascending=False, kind="stable")
