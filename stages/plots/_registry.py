"""All plots: every module of stages/plots whose name does not begin with an underscore.

A plot is a module with

- `TITLE`: its heading; `ORDER`: its place among the others;
- `COLUMNS`: name and type of each column of its table;
- `table(predictions)`: its table, which `evaluate` writes to reports/plots. A plot without it shows the history;
- `figure(table)`: its figure;
- `description(table, metrics, num_classes)`: a sentence or two below it;
- optionally `check(table, num_classes)`: raises a `ValueError` if `figure` could not show the table.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from stages.runtime.errors import UserError

REQUIRED = ("TITLE", "ORDER", "COLUMNS", "figure", "description")
# What a plot without a table can show
HISTORY = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def all_plots() -> dict[str, ModuleType]:
    """All plots by their names, in the order in which a reader sees them.

    Raises:
        UserError: a module lacks something that a plot has.
    """
    names = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    plots = {name: importlib.import_module(f"stages.plots.{name}") for name in names}
    for name, plot in plots.items():
        if missing := [needed for needed in REQUIRED if not hasattr(plot, needed)]:
            raise UserError(f"{_file(name)}: it has no {missing[0]}; stages/plots/_registry.py says what a plot has")
        if not hasattr(plot, "table") and not set(HISTORY).issuperset(plot.COLUMNS):
            raise UserError(
                f"{_file(name)}: it has no `table`, and the history has only the columns {', '.join(HISTORY)}"
            )
    return dict(sorted(plots.items(), key=lambda item: item[1].ORDER))


def tables(predictions: Any) -> dict[str, pd.DataFrame]:
    """The table of every plot that has one of its own.

    Raises:
        UserError: a table has no rows, or not the columns that its module names.
    """
    plots = all_plots()
    found = {name: plot.table(predictions) for name, plot in plots.items() if hasattr(plot, "table")}
    for name, table in found.items():
        for column, kind in plots[name].COLUMNS.items():
            if column not in table:
                raise UserError(f"{_file(name)}: COLUMNS has {column!r}, which `table` does not return")
            if (kind is int and not is_integer_dtype(table[column])) or (
                kind is float and not is_numeric_dtype(table[column])
            ):
                raise UserError(
                    f"{_file(name)}: COLUMNS says {kind.__name__} for {column!r}, but `table` returns "
                    f"{table[column].dtype}"
                )
        if not len(table):
            raise UserError(f"{_file(name)}: `table` returns no rows; `figure` needs some")
    return found


def _file(name: str) -> str:
    return f"stages/plots/{name}.py"
