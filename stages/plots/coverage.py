"""How accurate a model is on the images that it is surest of: risk against coverage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.evaluation.predictions import Predictions
from stages.plots._style import BLUE, ORANGE, new_figure, percent, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Accuracy of the surest answers"
ORDER = 50
COLUMNS = {**dict.fromkeys(("answered", "accuracy", "confidence"), float), "threshold": int}
POINTS = 50


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each share of test images, the surest first: their accuracy, and the lowest confidence among them.

    `threshold` is 1 in the row of the images that a model with `abstain` answers, whose limit validation images chose.
    """
    order = np.argsort(-predictions.confidence, kind="stable")
    confidence, hits = predictions.confidence[order], np.cumsum(predictions.correct[order])
    sure = 0 if predictions.not_sure_below is None else int((confidence >= predictions.not_sure_below).sum())
    counts = np.unique(np.append(np.ceil(np.linspace(1 / POINTS, 1, POINTS) * len(order)).astype(int), max(sure, 1)))
    shares = pd.DataFrame({"answered": counts / len(order), "accuracy": hits[counts - 1] / counts})
    return shares.assign(confidence=confidence[counts - 1]).round(4).assign(threshold=(counts == sure).astype(int))


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """Accuracy over the share of images that are answered; the threshold as a dot."""
    figure, (axes,) = new_figure(5.2, 2.6)
    axes.plot(table["answered"], table["accuracy"], color=BLUE)
    for row in table[table["threshold"] == 1].itertuples():
        axes.scatter([row.answered], [row.accuracy], color=ORANGE, zorder=3, clip_on=False, label="threshold")
        axes.legend(loc="lower left")
    axes.set(xlim=(0, 1), xlabel="answered, the surest first", ylabel="accuracy")
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter(lambda share, position: f"{100 * share:.4g}%")
    return figure


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """The accuracy of the surer half and of all, and the threshold."""
    half = table[table["answered"] >= 0.5].iloc[0]
    text = (
        f"{percent(half['accuracy'])} of the surest {percent(half['answered'], 0)} are correct, "
        f"{percent(table['accuracy'].iloc[-1])} of all."
    )
    for row in table[table["threshold"] == 1].itertuples():
        text += (
            f" The threshold, chosen on validation images, answers {percent(row.answered)}, of which "
            f"{percent(row.accuracy)} are correct."
        )
    return text
