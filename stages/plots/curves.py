"""Accuracy and loss of every epoch. The table is the history that `train` writes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.plots._style import BLUE, ORANGE, new_figure, percent, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Training"
ORDER = 10
COLUMNS = {"epoch": int, **dict.fromkeys(("accuracy", "loss", "val_accuracy", "val_loss"), float)}


@styled
def figure(table: pd.DataFrame) -> "Figure":
    """Accuracy on the left, loss on the right, each in training and, if images were held out, in validation."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = new_figure(5.6, 2.9, columns=2)
    for axes, measure in ((left, "accuracy"), (right, "loss")):
        for column, label, color in ((measure, "training", BLUE), (f"val_{measure}", "validation", ORANGE)):
            marker = "o" if len(table) == 1 else None
            if column in table:
                axes.plot(table["epoch"], table[column], color=color, label=label, marker=marker)
        axes.set_title(measure, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def description(table: pd.DataFrame, metrics: Mapping[str, Any], num_classes: int) -> str:
    """The values of the last epoch."""
    last = table.iloc[-1]
    accuracy, loss = f"{percent(last['accuracy'])} in training", f"{last['loss']:.3f}"
    if "val_loss" in table:
        accuracy += f" and {percent(last['val_accuracy'])} in validation"
        loss += f" and {last['val_loss']:.3f}"
    return f"The last of {len(table)} epochs: accuracy {accuracy}; loss {loss}."
