"""Confusion matrix; of many classes, the ones that are confused most often."""

from collections.abc import Iterable, Mapping
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
PAIRS = 50  # most confused pairs of many classes that the table keeps


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each pair of classes: actual, predicted, count, and share of the actual class (0 if it is absent).

    Of many classes only some pairs have a row: the 50 most confused ones and the diagonal of their classes, and all
    pairs of the 20 most confused classes.
    """
    size = len(predictions.classes)
    pairs, counts = np.unique(predictions.true.astype(np.int64) * size + predictions.predicted, return_counts=True)
    images = np.bincount(predictions.true, minlength=size)

    def rows(chosen: np.ndarray) -> pd.DataFrame:
        actual, predicted = np.divmod(chosen, size)
        places = np.minimum(np.searchsorted(pairs, chosen), len(pairs) - 1)
        count = np.where(pairs[places] == chosen, counts[places], 0)
        share = (count / np.maximum(images[actual], 1)).round(4)
        return pd.DataFrame({"actual": actual, "predicted": predicted, "count": count, "share": share})

    found = rows(np.arange(size * size) if size <= ALL_CLASSES else pairs)
    if size > ALL_CLASSES:
        most = _most_confused(found)
        involved = _classes(most, range(SOME_CLASSES))
        some, diagonal = np.array(involved[:SOME_CLASSES]), np.array(involved) * (size + 1)
        square = (some[:, None] * size + some).ravel()
        found = rows(np.unique(np.concatenate([most["actual"] * size + most["predicted"], diagonal, square])))
    names = np.array(predictions.classes, object)
    return found.assign(actual=names[found["actual"]], predicted=names[found["predicted"]])


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """A heatmap of the shares of every actual class."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    classes = _shown_classes(table)
    names = [short(name) for name in classes]
    chosen = table[table["actual"].isin(classes) & table["predicted"].isin(classes)]
    shares = chosen["share"].to_numpy().reshape(len(names), len(names))
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
    """The number of classes, and the largest confusion."""
    shown = num_classes if num_classes <= ALL_CLASSES else SOME_CLASSES
    return f"Confusion matrix of {shown} classes, as shares of the actual class. " + summary(
        table, metrics, num_classes
    )


def note(table: pd.DataFrame, num_classes: int) -> str:
    """Which classes the figure shows, if not all."""
    if num_classes <= ALL_CLASSES:
        return ""
    return f"Of {num_classes:,} classes: the {SOME_CLASSES} that are confused most often."


def check(table: pd.DataFrame, num_classes: int) -> None:
    """Raise a `ValueError` if pairs of the classes that the figure shows have no row."""
    classes = _shown_classes(table)
    pairs = table["actual"].isin(classes) & table["predicted"].isin(classes)
    if pairs.sum() != len(classes) ** 2 or len(classes) < min(num_classes, SOME_CLASSES):
        raise ValueError(f"it has {len(table)} rows")


def summary(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """The largest confusion: by share; of many classes, of which some have few images, by count."""
    wrong = table[(table["actual"] != table["predicted"]) & (table["count"] > 0)]
    if wrong.empty:
        return "No image is taken for one of another class."
    worst = wrong.loc[wrong["share"].idxmax()] if num_classes <= ALL_CLASSES else _most_confused(table).iloc[0]
    images = "image" if worst["count"] == 1 else "images"
    return (
        f"The largest confusion: {percent(worst['share'])} of “{worst['actual']}” ({worst['count']:,} {images}) are "
        f"taken for “{worst['predicted']}”."
    )


def _most_confused(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the most confused pairs: the highest counts; of equal counts, the highest shares."""
    wrong = table[(table["actual"] != table["predicted"]) & (table["count"] > 0)]
    return wrong.sort_values(["count", "share"], ascending=False, kind="stable").head(PAIRS)


def _classes(pairs: pd.DataFrame, others: Iterable[Any]) -> list[Any]:
    """The classes of some pairs in the order of the rows; if they are fewer than 20, some of the others, too."""
    involved = list(dict.fromkeys(pairs[["actual", "predicted"]].to_numpy().ravel().tolist()))
    return list(dict.fromkeys([*involved, *others]))[: max(len(involved), SOME_CLASSES)]


def _shown_classes(table: pd.DataFrame) -> list[str]:
    """The classes of the figure in the order of the labels: all, or those of the most confused pairs."""
    names = list(dict.fromkeys(table["actual"]))
    if _is_whole(table):
        return names
    shown = set(_classes(_most_confused(table), names)[:SOME_CLASSES])
    return [name for name in names if name in shown]


def _is_whole(table: pd.DataFrame) -> bool:
    """Whether every pair of classes has a row."""
    return len(table) == table["actual"].nunique() ** 2
