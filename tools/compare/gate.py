"""`make gate BASE=main`: exit code 1 if a model is worse than `gates` of params.yaml allows, by more than chance."""

import sys
from collections import defaultdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from stages.config import params
from stages.config.sections import GateConfig
from stages.evaluation.metrics import wilson
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib.revision import Revision
from tools.lib.significance import difference

Gates = dict[str, GateConfig]


def gate(base: str) -> None:
    """Judge the workspace by the limits of `base`, print the result, and exit with 1 if it does not pass."""
    passed, lines = judge(Revision(base), Revision())
    print(*lines, sep="\n")
    if not passed:
        sys.exit(1)


def judge(before: Revision, after: Revision, model: str | None = None) -> tuple[bool, list[str]]:
    """Whether the gate passes, and lines with each broken limit, each judged model and a summary.

    With `model`, no other model is judged, and a model without limits does not pass.

    Limits are those of `before`: a change cannot loosen the limits that it is judged by. `after` decides only for
    models without limits there. A gate that judges no model although it has limits does not pass.

    Raises:
        UserError: a model that should be judged has no metrics.
    """
    values = params.check(after.params, Path(f"{after.name}: params.yaml"))
    limits, reasons = _limits(before, values.gates)
    if model is not None:
        if model not in limits:
            return False, [f"nothing to judge; params.yaml has no gates.{model}"]
        limits = {model: limits[model]}
    notes = defaultdict[str, list[str]](list, judged=[])
    broken, measured = [], []
    for name, limit in limits.items():
        if name not in values.models:
            notes["not judged, no longer in params.yaml"].append(name)
        elif values.is_model_synthetic(name):
            notes["not judged, synthetic data"].append(name)
        elif name in after.unevaluated:
            raise UserError(f"reports/metrics/{name}.json: missing; run `dvc repro`")
        elif name not in after.metrics:
            notes["not judged, not reproduced"].append(name)
        elif not (now := after.accuracy(name))[1]:
            notes["not judged, no validation images"].append(name)
        else:
            notes["judged"].append(name)
            low, high = wilson(*now)
            said = f"{name}: validation accuracy {now[0]:.2%} ({low:.2%} to {high:.2%})"
            measured.append(f"{said}, test accuracy {after.metrics[name]['accuracy']:.2%}")
            if limit.min_accuracy is not None and high < limit.min_accuracy:
                broken.append(f"{said} is below min_accuracy, {limit.min_accuracy:.2%}")
            if limit.max_drop is None:
                continue
            was = before.accuracy(name) if name in before.metrics else (0.0, 0)
            if was[1] != now[1]:
                notes[f"not compared with {before.name}, new or on other validation images"].append(name)
            elif (drop := difference(was, now))[0] > limit.max_drop:
                broken.append(
                    f"{name}: validation accuracy {was[0]:.2%} at {before.name}, {now[0]:.2%} now: dropped "
                    f"{100 * (was[0] - now[0]):.2f} points ({100 * drop[0]:.2f} to {100 * drop[1]:.2f}); "
                    f"max_drop: {100 * limit.max_drop:.2f}"
                )
    summary = [f"{what}: {', '.join(names)}" for what, names in {**notes, **reasons}.items() if names]
    passed = not broken and (bool(measured) or not limits)
    outcome = "gate passed" if passed else "gate failed" if broken else "nothing to judge"
    return passed, [*broken, *measured, f"{outcome}; {'; '.join(summary) or 'params.yaml has no gates'}"]


def _limits(before: Revision, own: Gates) -> tuple[Gates, dict[str, list[str]]]:
    """The limits of `before`, of `own` for other models, and notes for the last line."""
    try:
        limits = TypeAdapter(Gates).validate_python(before.params.get("gates", {}))
    except ValidationError:
        return own, {f"limits of the workspace, those of {before.name} have another schema": list(own)}
    other = [name for name, limit in limits.items() if own.get(name) != limit]
    return {**own, **limits}, {
        f"limits of {before.name} apply, the workspace has others": other,
        "limits of the workspace, new": [name for name in own if name not in limits],
    }


if __name__ == "__main__":
    run(gate, "base")
