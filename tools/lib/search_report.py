"""What a search found: a table of the best trials, all trials as CSV, and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from stages.plots._style import BLUE, MUTED, ORANGE, new_figure, styled
from stages.reporting.markdown import table
from stages.runtime.files import atomic_write

FOLDER = Path("reports/search")
SHOWN = 5  # trials in the table
FEW = 6  # values of a key that all get a tick
FEWEST = 8  # complete trials to estimate how much each key matters


def write(study: optuna.Study, trials: Sequence[FrozenTrial], name: str, sampler: str) -> str:
    """Write the CSV and the figure of finished trials; return the table of the best as Markdown."""
    frame = _frame(trials)
    csv, figure = (FOLDER / f"{name}-{sampler}.{kind}" for kind in ("csv", "png"))
    with atomic_write(csv) as part:
        frame.to_csv(part, index=False)
    importances = _importances(study, trials)
    with atomic_write(figure) as part:
        _plot(frame, list(trials[0].distributions), study, importances, part)
    best = frame[frame["state"] == "complete"].sort_values("validation_accuracy", ascending=False, kind="stable")
    keys = list(trials[0].distributions)
    rows = [
        [
            row["trial"],
            f"{row['validation_accuracy']:.2%}",
            *(f"{row[key]:.6g}" if isinstance(row[key], float) else row[key] for key in keys),
            row["seconds"],
        ]
        for _, row in best.head(SHOWN).iterrows()
    ]
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    shares = "; variance explained: " + ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
    head = table(["Trial", "Validation", *keys, "Seconds"], rows, "rr" + "r" * len(keys) + "r")
    return f"{head}\n\n{counts}{shares if importances else ''}\nAll trials: {csv}, {figure}"


def assignments(values: Mapping[str, Any]) -> str:
    """Values as `learning_rate=0.00123 batch_size=64`."""
    return " ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


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
def _plot(
    frame: pd.DataFrame, keys: list[str], study: optuna.Study, importances: Mapping[str, float], path: Path
) -> None:
    """The accuracy of each trial in their order with the best so far, and against each key."""
    complete = frame[frame["state"] == "complete"]
    figure, (history, *axes) = new_figure(4 * (1 + len(keys)), 3.2, 1 + len(keys), sharey=True)
    history.plot(complete["trial"], complete["validation_accuracy"], "o", color=BLUE, label="trial")
    history.step(
        complete["trial"], complete["validation_accuracy"].cummax(), where="post", color=ORANGE, label="best so far"
    )
    for trial in frame.loc[frame["state"] != "complete", "trial"]:
        history.axvline(trial, color=MUTED, linestyle=":", linewidth=0.8)
    history.set(title="history (dotted: pruned or failed)", xlabel="trial", ylabel="validation accuracy")
    history.legend()
    for key, each in zip(keys, axes, strict=True):
        values = complete[key]
        numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        each.plot(values if numbers else values.astype(str), complete["validation_accuracy"], "o", color=BLUE)
        if numbers and (values > 0).all() and values.max() > 10 * values.min():
            each.set_xscale("log")
            each.xaxis.set_major_formatter(lambda value, position: f"{value:g}")  # the default one writes TeX
            each.xaxis.set_minor_formatter("")
            if len(ticks := sorted(set(values))) <= FEW:
                each.set_xticks(ticks)
                each.minorticks_off()
        share = f": explains {importances[key]:.0%}" if key in importances else ""
        each.set(title=key + share, xlabel=key)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
