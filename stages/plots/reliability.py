"""How often a model is correct when it is this confident, before and after its temperature."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.evaluation.metrics import calibration_bins, calibration_error
from stages.evaluation.predictions import Predictions
from stages.plots._style import BLUE, MUTED, ORANGE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Reliability"
ORDER = 40
COLUMNS = {"temperature": str, **dict.fromkeys(("low", "high", "confidence", "accuracy"), float), "images": int}


def table(predictions: Predictions) -> pd.DataFrame:
    """A row for each bin of confidence that holds any images, after the temperature, and before it if there is one."""
    parts = {"after": predictions.confidence}
    if predictions.temperature != 1:
        parts["before"] = predictions.confidence_before_temperature()
    bins = {name: calibration_bins(confidence, predictions.correct).round(4) for name, confidence in parts.items()}
    return pd.concat(bins, names=["temperature"]).reset_index("temperature")


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """Accuracy over confidence, with the diagonal; below, the share of the images in every bin."""
    from matplotlib.ticker import MaxNLocator

    figure, (upper, lower) = new_figure(5.2, 3.6, rows=2, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    for name, color in (("before", ORANGE), ("after", BLUE)):
        part = table[table["temperature"] == name]
        weights = part["images"] / part["images"].sum()
        upper.plot(part["confidence"], part["accuracy"], color=color, linewidth=1, label=f"{name} the temperature")
        upper.scatter(part["confidence"], part["accuracy"], s=10 + 190 * weights, color=color, clip_on=False, zorder=3)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    if "before" in set(table["temperature"]):
        upper.legend(loc="upper left")
    lower.bar(part["low"], weights, 0.9 * (part["high"] - part["low"]), align="edge", color=BLUE)
    lower.set(xlabel="confidence", ylabel="images")
    for axes in (upper, lower):
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
    lower.yaxis.set_major_locator(MaxNLocator(2))
    return figure


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """Whether the model is over- or underconfident, and by how much."""
    after, before = (table[table["temperature"] == name] for name in ("after", "before"))
    gap = float(np.average(after["confidence"] - after["accuracy"], weights=after["images"])) * 100
    side = "above" if gap > 0 else "below"
    error = f", before the temperature {calibration_error(before):.3f}" if len(before) else ""
    return (
        f"Confidence is {abs(gap):.1f} points {side} accuracy on average; the expected calibration error is "
        f"{metrics['ece']:.3f}{error}."
    )
