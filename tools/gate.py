"""`make gate BASE=main`: exit code 1 if a model is worse than `gates:` of params.yaml allows, by more than chance."""

import math
import sys
from typing import Any

from stages import params
from stages.console import UserError, run
from tools.revision import Revision

Metrics = dict[str, Any]


def gate(base: str) -> None:
    """Print what fell, and a line on what was judged.

    Models on drawn samples are passed over. A fall is judged where `base` has metrics on as many test images.

    Raises:
        UserError: there is no such revision, or a model has no metrics.
    """
    values = params.load()
    drawn = [name for name in values.gates if values.is_drawn(name)]
    judged = {name: limits for name, limits in values.gates.items() if name not in drawn}
    falls = {name: limits.max_fall for name, limits in judged.items() if limits.max_fall is not None}
    after = Revision().metrics if judged else {}
    before = Revision(base).metrics if falls else {}
    missing = [name for name in judged if name not in after]
    if missing:
        raise UserError(f"reports/metrics/{missing[0]}.json: missing; run `dvc repro`")
    new = [name for name in falls if before.get(name, {}).get("images") != after[name]["images"]]
    fallen = [
        *(below(name, after[name], limits.floor) for name, limits in judged.items() if limits.floor is not None),
        *(fall(name, before[name], after[name], limit, base) for name, limit in falls.items() if name not in new),
    ]
    for line in filter(None, fallen):
        print(line)
    notes = {
        "judged": list(judged),
        "passed over, on drawn samples": drawn,
        f"not compared, on other test images than {base}'s or new": new,
    }
    said = [f"{what}: {', '.join(names)}" for what, names in notes.items() if names]
    print(f"gate: {'; '.join(said) or 'params.yaml has none'}")
    if any(fallen):
        sys.exit(1)


def below(name: str, metrics: Metrics, floor: float) -> str | None:
    """What to say of a model whose whole 95 % interval lies below its floor."""
    if metrics["accuracy_high"] >= floor:
        return None
    return (
        f"{name}: test accuracy {metrics['accuracy']:.2%} ({metrics['accuracy_low']:.2%} to "
        f"{metrics['accuracy_high']:.2%}) is below the floor of {floor:.2%}"
    )


def fall(name: str, before: Metrics, after: Metrics, limit: float, base: str) -> str | None:
    """What to say of a model whose fall is greater than `limit` over its whole 95 % interval."""
    low, high = difference(before, after)
    if low <= limit:
        return None
    return (
        f"{name}: test accuracy {before['accuracy']:.2%} at {base}, {after['accuracy']:.2%} now: fell by "
        f"{100 * (before['accuracy'] - after['accuracy']):.2f} points ({100 * low:.2f} to {100 * high:.2f}), "
        f"and {100 * limit:.2f} are allowed"
    )


def difference(first: Metrics, second: Metrics) -> tuple[float, float]:
    """95 % interval of the first accuracy less the second, from their Wilson intervals.

    Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10. The images are
    the same for both models, so the true interval is narrower: a gate on it fails too seldom rather than too often.
    """
    gap = first["accuracy"] - second["accuracy"]
    low = math.hypot(first["accuracy"] - first["accuracy_low"], second["accuracy_high"] - second["accuracy"])
    high = math.hypot(first["accuracy_high"] - first["accuracy"], second["accuracy"] - second["accuracy_low"])
    return gap - low, gap + high


if __name__ == "__main__":
    run(gate, "base")
