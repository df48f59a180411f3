"""All plots: every module of stages/plots whose name does not begin with an underscore.

A plot is a module with

- `TITLE`: its heading; `ORDER`: its place among the others;
- `COLUMNS`: name and type of each column of its table;
- `table(predictions)`: its table, which `evaluate` writes to reports/plots. A plot without it shows the history;
- `figure(table)`: its figure;
- `description(table, metrics, num_classes)`: a sentence or two below it.
"""

import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd

from stages.evaluation.predictions import Predictions


def all_plots() -> dict[str, ModuleType]:
    """All plots by their names, in the order in which a reader sees them."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    plots = {name: importlib.import_module(f"stages.plots.{name}") for name in names}
    return dict(sorted(plots.items(), key=lambda item: item[1].ORDER))


def tables(predictions: Predictions) -> dict[str, pd.DataFrame]:
    """The table of every plot that has one of its own."""
    return {name: plot.table(predictions) for name, plot in all_plots().items() if hasattr(plot, "table")}
