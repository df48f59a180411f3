"""`make gate BASE=main`: exit code 1 if a model is worse than `gates` of params.yaml allows, by more than chance."""

import sys
from pathlib import Path

from pydantic import ValidationError

from stages.config import params
from stages.config.gates import GateConfig
from stages.config.messages import explain
from stages.evaluation.metrics import wilson
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.revision import Revision
from tools.significance import difference

Gates = dict[str, GateConfig]
Accuracy = tuple[float, int]  # and its number of images


def gate(base: str) -> None:
    """Judge the workspace by the limits of `base`, print the result, and exit with 1 if it does not pass."""
    passed, lines = judge(Revision(base), Revision())
    print(*lines, sep="\n")
    if not passed:
        sys.exit(1)


def judge(before: Revision, after: Revision) -> tuple[bool, list[str]]:
    """Whether the gate passes, and lines with each broken limit, each judged model and a summary.

    Limits are those of `before`: a change cannot loosen the limits that it is judged by. `after` decides only for
    models without limits there. A gate that judges no model although it has limits does not pass.

    Raises:
        UserError: a model that should be judged has no metrics.
    """
    values = params.check(after.params, Path(f"{after.name}: params.yaml"))
    limits, notes = _limits(before, values.gates)
    models = [name for name in limits if name in values.models]
    synthetic = [name for name in models if values.is_model_synthetic(name)]
    judged = [name for name in models if name not in synthetic and (name in after.metrics or not after.reproduced_on)]
    missing = [name for name in judged if name not in after.metrics]
    if missing:
        raise UserError(f"reports/metrics/{missing[0]}.json: missing; run `dvc repro`")
    found = {name: _accuracy(after, name) for name in judged}
    base = {
        name: _accuracy(before, name)
        for name in judged
        if limits[name].max_drop is not None and name in before.metrics and before.validation_images(name)
    }
    comparable = [name for name in base if base[name][1] == found[name][1]]
    broken = list(
        filter(
            None,
            [
                *(below(name, found[name], limits[name].min_accuracy) for name in judged),
                *(drop(name, base[name], found[name], limits[name].max_drop, before.name) for name in comparable),
            ],
        )
    )
    measured = [
        f"{name}: validation accuracy {_interval(found[name])}, test accuracy {after.metrics[name]['accuracy']:.2%}"
        for name in judged
    ]
    notes = {
        "judged": judged,
        "not judged, synthetic data": synthetic,
        f"not compared with {before.name}, new or on other validation images": [
            name for name in judged if limits[name].max_drop is not None and name not in comparable
        ],
        "not judged, no longer in params.yaml": [name for name in limits if name not in values.models],
        "not judged, not reproduced": [name for name in models if name not in synthetic and name not in judged],
        **notes,
    }
    said = [f"{what}: {', '.join(names)}" for what, names in notes.items() if names]
    passed = not broken and (bool(judged) or not limits)
    outcome = "passed" if passed else "failed" if broken else "failed, no model was judged"
    return passed, [*broken, *measured, f"gate {outcome}; {'; '.join(said) or 'params.yaml has no gates'}"]


def _limits(before: Revision, own: Gates) -> tuple[Gates, dict[str, list[str]]]:
    """The limits of `before`, of `own` for other models, and notes for the last line."""
    limits: Gates = {}
    for name, values in before.params.get("gates", {}).items():
        try:
            limits[name] = GateConfig.model_validate(values)
        except ValidationError as error:
            reason = explain(error, values, GateConfig, f"gates.{name}")
            return own, {f"limits of the workspace, those of {before.name} have another schema": [reason]}
    return {**own, **limits}, {
        f"limits of {before.name} apply, the workspace has others": [
            name for name, limit in limits.items() if own.get(name) != limit
        ],
        "limits of the workspace, new": [name for name in own if name not in limits],
    }


def _accuracy(revision: Revision, name: str) -> Accuracy:
    """Validation accuracy of a model and its number of images."""
    images = revision.validation_images(name)
    if not images:
        raise UserError(f"{revision.name}: the number of validation images of {name} is unknown; run `dvc repro`")
    return revision.metrics[name]["validation_accuracy"], images


def below(name: str, accuracy: Accuracy, minimum: float | None) -> str | None:
    """The message for a model if its whole 95 % interval lies below its minimum."""
    if minimum is None or wilson(*accuracy)[1] >= minimum:
        return None
    return f"{name}: validation accuracy {_interval(accuracy)} is below min_accuracy, {minimum:.2%}"


def drop(name: str, before: Accuracy, after: Accuracy, limit: float | None, base: str) -> str | None:
    """The message for a model if its drop exceeds `limit` over the whole 95 % interval of the difference."""
    low, high = difference(before, after)
    if limit is None or low <= limit:
        return None
    return (
        f"{name}: validation accuracy {before[0]:.2%} at {base}, {after[0]:.2%} now: dropped "
        f"{100 * (before[0] - after[0]):.2f} points ({100 * low:.2f} to {100 * high:.2f}); max_drop: {100 * limit:.2f}"
    )


def _interval(accuracy: Accuracy) -> str:
    low, high = wilson(*accuracy)
    return f"{accuracy[0]:.2%} ({low:.2%} to {high:.2%})"


if __name__ == "__main__":
    run(gate, "base")
