"""How often a model is correct when it is this confident."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.evaluation.metrics import calibration_bins
from stages.evaluation.predictions import Predictions
from stages.plots._style import BLUE, MUTED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Reliability"
ORDER = 40
COLUMNS = {**dict.fromkeys(("low", "high", "confidence", "accuracy"), float), "images": int}


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each bin of confidence that holds any images, as for the expected calibration error."""
    return calibration_bins(predictions).round(4)


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """Accuracy over confidence, with the diagonal; below, the share of the images in every bin."""
    from matplotlib.ticker import MaxNLocator

    figure, (upper, lower) = new_figure(5.2, 3.6, rows=2, sharex=True, height_ratios=[4, 1])
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


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """What the axes are, and the expected calibration error."""
    return (
        "Accuracy over confidence, against the diagonal of a calibrated model. "
        f"Expected calibration error {metrics['ece']:.3f}."
    )


def summary(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """Whether the model is over- or underconfident, and by how much."""
    gap = float(np.average(table["confidence"] - table["accuracy"], weights=table["images"])) * 100
    return (
        f"Confidence is {abs(gap):.1f} points {'above' if gap > 0 else 'below'} accuracy on average; "
        f"the expected calibration error is {metrics['ece']:.3f}."
    )
