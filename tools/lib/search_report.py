"""What a search found: a table of the best trials, all trials as CSV, and Optuna's figures."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from stages.plots._style import styled
from stages.reporting.markdown import table
from stages.runtime.files import atomic_write

FOLDER = Path("reports/search")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
SHOWN = 5  # trials in the table
FEWEST = 8  # complete trials to estimate how much each key matters


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the best value, the first of equal ones; None if no trial is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def write(study: optuna.Study, name: str) -> str:
    """Write the CSV and the figures; return the table of the best as Markdown."""
    path = FOLDER / f"{name}.csv"
    frame = study.trials_dataframe(("number", "state", "value", "duration", "params", "user_attrs"))
    frame["duration"] = frame["duration"].dt.total_seconds().round(1)
    frame["state"] = frame["state"].str.lower()
    frame = frame.rename(columns=lambda column: column.removeprefix("params_").removeprefix("user_attrs_"))
    with atomic_write(path) as part:
        frame.to_csv(part, index=False)
    files = [path, *_plot(study, name)]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    keys = list(complete[0].params)
    rows = [
        [trial.number, f"{trial.value:.2%}", *(_short(trial.params[key]) for key in keys)]
        for trial in sorted(complete, key=lambda trial: -(trial.value or 0))[:SHOWN]
    ]
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    explained = ""
    if len(complete) >= FEWEST and len({trial.value for trial in complete}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        explained = "; variance explained: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
    best = table(["Trial", "Validation", *keys], rows, "rr" + "r" * len(keys))
    return f"{best}\n\n{counts}{explained}\nAll trials: {', '.join(map(str, files))}"


def assignments(values: Mapping[str, Any]) -> str:
    """Values as `learning_rate=0.00123 batch_size=64`."""
    return " ".join(f"{key}={_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


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
