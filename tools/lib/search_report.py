"""What a search found: a table of the best trials, all trials as CSV, and Optuna's figures."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from stages.plots._style import styled
from stages.reporting.markdown import table
from stages.runtime.files import atomic_write

FOLDER = Path("reports/search")
SHOWN = 5  # trials in the table
FEWEST = 8  # complete trials to estimate how much each key matters


def write(study: optuna.Study, trials: Sequence[FrozenTrial], name: str, sampler: str) -> str:
    """Write the CSV and the figures of finished trials; return the table of the best as Markdown."""
    frame, files = _frame(trials), [FOLDER / f"{name}-{sampler}.csv"]
    with atomic_write(files[0]) as part:
        frame.to_csv(part, index=False)
    files += _plot(study, f"{name}-{sampler}")
    best = frame[frame["state"] == "complete"].sort_values("validation_accuracy", ascending=False, kind="stable")
    keys = list(trials[0].distributions)
    rows = [
        [row["trial"], f"{row['validation_accuracy']:.2%}", *map(_short, row[keys]), row["seconds"]]
        for _, row in best.head(SHOWN).iterrows()
    ]
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    shares = ", ".join(f"{key} {share:.0%}" for key, share in _importances(study, trials).items())
    head = table(["Trial", "Validation", *keys, "Seconds"], rows, "rr" + "r" * len(keys) + "r")
    explained = f"; variance explained: {shares}" if shares else ""
    return f"{head}\n\n{counts}{explained}\nAll trials: {', '.join(map(str, files))}"


def assignments(values: Mapping[str, Any]) -> str:
    """Values as `learning_rate=0.00123 batch_size=64`."""
    return " ".join(f"{key}={_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """A row for each trial."""
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "state": trial.state.name.lower().replace("fail", "failed"),
                "validation_accuracy": trial.value if trial.state == TrialState.COMPLETE else None,
                "epochs": max(trial.intermediate_values, default=None),
                "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
                **trial.params,
                "error": trial.user_attrs.get("error"),
            }
            for trial in trials
        ]
    )


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """The share of the variance of the accuracy that each key explains (fANOVA); empty with few trials."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < FEWEST or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


@styled
def _plot(study: optuna.Study, name: str) -> list[Path]:
    """Draw the history of the search, and the accuracy against each key; return the files."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib

    files = []
    for kind, draw in (("history", matplotlib.plot_optimization_history), ("values", matplotlib.plot_slice)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            axes: Any = draw(study, target_name="validation accuracy")
        figure = np.ravel(axes)[0].figure
        files.append(FOLDER / f"{name}-{kind}.png")
        with atomic_write(files[-1]) as part:
            figure.savefig(part, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(figure)
    return files
