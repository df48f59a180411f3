"""Precision, recall and F1 of each class; of many classes, the best and the worst."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.evaluation.metrics import class_scores
from stages.evaluation.predictions import Predictions
from stages.plots._style import ALL_CLASSES, BLUE, SOME_CLASSES, bars, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Classes"
ORDER = 30
COLUMNS = {"class": str, "precision": float, "recall": float, "f1": float, "images": int}
ROWS = 1000  # at most, of the table


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each class in the order of the labels; of more than 1,000 classes, the 500 best and the 500 worst."""
    scores = class_scores(predictions).round(4)
    scores.insert(0, "class", predictions.classes)
    return scores if len(scores) <= ROWS else _extremes(scores, ROWS).sort_index()


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """A bar for each class and score."""
    if len(table) > ALL_CLASSES:
        table = _extremes(table, SOME_CLASSES)
    figure, panels = new_figure(5.6, 0.9 + 0.21 * len(table), columns=3, sharey=True)
    for axes, column in zip(panels, ("precision", "recall", "f1"), strict=True):
        bars(axes, table[column], BLUE)
        axes.set_xlim(0, 1)
        axes.set_title(f"{'F1' if column == 'f1' else column}, %", loc="left")
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
        first, _, last = axes.get_xticklabels()  # within the panel: the next one begins beside it
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
    panels[0].set_yticks(range(len(table)), [short(name) for name in table["class"]])
    return figure


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """The best and the worst class, and which classes the figure shows, if not all."""
    ranked = _ranked(table)
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    text = f"Recognized best: “{best['class']}” (F1 {best['f1']:.2f}); worst: “{worst['class']}” ({worst['f1']:.2f})."
    if num_classes <= ALL_CLASSES:
        return text
    half = SOME_CLASSES // 2
    return f"{text} Of {num_classes:,} classes: the {half} with the highest F1 and the {half} with the lowest."


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The classes that have images, from the highest F1 to the lowest."""
    return table[table["images"] > 0].sort_values("f1", ascending=False, kind="stable")


def _extremes(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """The best and the worst classes that have images, `number` in all, from the best to the worst."""
    ranked = _ranked(table)
    return ranked if len(ranked) <= number else pd.concat([ranked.head(number // 2), ranked.tail(number // 2)])
