"""`make review BASE=main`: what the workspace changes against another revision, as a comment in Markdown."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from stages import params
from stages.console import run
from tools.revision import ABSENT, Revision, differences, points, table

LEVEL = 0.05
DATA = ("download@", "download_weights@", "preprocess@", "extract@")


@dataclass(frozen=True)
class Test:
    """A paired test of two models on the same images.

    lost: images that only the first has right. gained: that only the second has right. p: of the exact McNemar test.
    """

    lost: int
    gained: int
    p: float


def review(base: str) -> None:
    """Print the comment. Without predictions it is made from the metrics, which are in Git, and says so."""
    values = params.load()
    print(comment(values, Revision(base), Revision(), os.environ.get("PLOTS_URL")))


def comment(values: params.Params, before: Revision, after: Revision, plots: str | None = None) -> str:
    """Everything in which two revisions differ.

    Args:
        values: the checked params of `after`.
        before: the revision to compare with.
        after: the workspace.
        plots: where both revisions' plots are to be seen; None for the command that draws them.
    """
    sections = [
        *_models(values, before, after),
        *_params(before.params, after.params),
        *_data(before.stages, after.stages),
    ]
    base = f"`{before.name}` ({before.commit})"
    if not sections:
        return f"Nothing differs from {base}: no metrics, params, data or models."
    show = f"[Plots of both]({plots})" if plots else f"Plots of both: `make plots BASE={before.name}`"
    more = f"{show}. All metrics: `dvc metrics diff {before.name} --md`."
    return "\n\n".join([f"## The workspace against {base}", *sections, more])


def paired(before: pd.DataFrame, after: pd.DataFrame) -> Test | str:
    """Exact McNemar test (McNemar, "Note on the sampling error of the difference", 1947) of two models' predictions.

    If neither model were better, an image that only one of them has right would be as likely to be the one's as the
    other's: the p-value is that of a fair coin, two-sided, exact whatever the number of images.

    Args:
        before: key, true and predicted class of each image.
        after: likewise. Its rows may have another order.

    Returns:
        The test; or why there is none.
    """
    both = before.merge(after, on="key", how="outer", suffixes=("_before", "_after"), indicator=True)
    if not both["_merge"].eq("both").all():
        return "other test images"
    if not both["true_before"].eq(both["true_after"]).all():
        return "other labels of the test images"
    right_before = both["predicted_before"] == both["true_before"]
    right_after = both["predicted_after"] == both["true_after"]
    lost, gained = int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
    return Test(lost, gained, float(binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0)


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    With them the chance that any of the models is called better or worse without being so is 5 % in all, not 5 % for
    each: where a change reaches thirteen models, every second review would else have an undeserved word.
    """
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def _models(values: params.Params, before: Revision, after: Revision) -> Iterator[str]:
    """What became of the models: compared, added, removed, not measured."""
    changed = [
        name  # a metric that only one side has is new, not changed
        for name, found in after.metrics.items()
        if any(found[key] != value for key, value in before.metrics.get(name, {}).items() if key in found)
    ]
    if changed:
        yield from _changed(changed, before, after)
        drawn = [name for name in changed if values.is_drawn(name)]
        if drawn:
            which = "" if drawn == changed else f": {_names(drawn)}"
            yield f"On drawn samples, which say nothing of the real data{which}."
    old, new = before.params.get("models", {}), after.params.get("models", {})
    for what, names, figures in (
        ("Added", [name for name in new if name not in old], after.metrics),
        ("Removed", [name for name in old if name not in new], before.metrics),
    ):
        if names:
            yield f"{what}: " + ", ".join(f"`{name}` ({_accuracy(figures.get(name))})" for name in names) + "."
    unmeasured = [name for name in new if name not in after.metrics]
    if unmeasured:
        yield f"Without metrics in the workspace: {_names(unmeasured)}. Run `make repro`."
    stale = [name for name in after.metrics if _stale(name, after)]
    if stale:
        yield f"Trained before the params of the workspace were changed: {_names(stale)}. Run `make repro`."


def _changed(names: list[str], before: Revision, after: Revision) -> Iterator[str]:
    """The table of the models whose metrics differ, and what is to be known of it."""
    outcomes = {name: _test(name, before, after) for name in names}
    tests = {name: found for name, found in outcomes.items() if isinstance(found, Test)}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    rows = []
    for name in names:
        old, new = before.metrics[name], after.metrics[name]
        test = tests.get(name)
        rows.append(
            [
                f"`{name}`",
                f"{old['accuracy']:.2%}",
                f"{new['accuracy']:.2%}",
                points(old, new),
                f"{test.lost:,}" if test else ABSENT,
                f"{test.gained:,}" if test else ABSENT,
                _p_value(adjusted[name]) if test else ABSENT,
                _word(test, adjusted[name]) if test else "not tested",
            ]
        )
    yield table(["Test accuracy", "Before", "After", "Points", "Lost", "Gained", "p", ""], "lrrrrrrl", rows)
    if tests:
        several = f", adjusted for {len(tests)} models (Holm)" if len(tests) > 1 else ""
        yield (
            "Lost, gained: images that only the old, only the new model has right. p: exact McNemar test on them, "
            f"two-sided{several}; a word at {LEVEL:.0%}. It compares two trained models; how far another seed alone "
            "moves them, `make seeds` says."
        )
    for reason in dict.fromkeys(found for found in outcomes.values() if isinstance(found, str)):
        yield f"Not tested, because of {reason}: {_names(name for name in names if outcomes[name] == reason)}."
    unexplained = [name for name in names if _same_recipe(before.stages, after.stages, name)]
    if unexplained:
        yield (
            "Trained with the same params, code and data on both sides, so on another kind of machine or with other "
            f"packages: {_names(unexplained)}."
        )


def _test(name: str, before: Revision, after: Revision) -> Test | str:
    """The paired test of a model; or why there is none."""
    found = [revision.predictions(name) for revision in (before, after)]
    missing = [revision.name for revision, frame in zip((before, after), found, strict=True) if frame is None]
    if missing:
        return f"predictions of {' and '.join(missing)} that neither the cache nor a remote has"
    return paired(*found)


def _same_recipe(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    """Whether both locks have the model trained from the same, and end with other predictions."""
    old, new = before.get(f"train@{name}"), after.get(f"train@{name}")
    if not old or not new:
        return False
    return all(old.get(part) == new.get(part) for part in ("cmd", "deps", "params")) and old["outs"] != new["outs"]


def _stale(name: str, revision: Revision) -> bool:
    """Whether dvc.lock has a model trained with other params than params.yaml gives."""
    train = revision.stages.get(f"train@{name}")
    if not train:
        return False
    values = {**revision.params, f"models.{name}": revision.params["models"][name]}
    return any(values.get(key) != value for key, value in train["params"]["params.yaml"].items())


def _params(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """A row for each value of params.yaml that differs; models that are added or removed are told elsewhere."""
    gone = {f"models.{name}" for name in before.get("models", {}).keys() ^ after.get("models", {}).keys()}
    rows = [row for row in differences(before, after) if row[0] not in gone]
    if rows:
        yield table(["Params", "Before", "After"], "lll", [[_code(cell) for cell in row] for row in rows])


def _data(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """A row for each output of the stages that make data whose hash differs."""
    old, new = _outputs(before), _outputs(after)
    rows = [
        [f"`{path}`", old.get(path, ABSENT), new.get(path, ABSENT)]
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    ]
    if rows:
        yield table(["Data", "Before", "After"], "lll", rows)


def _outputs(stages: dict[str, Any]) -> dict[str, str]:
    """Hash and size of each output of the stages that make data."""
    return {
        out["path"]: f"{out['md5'][:7]}, {out['size']:,} bytes"
        for name, stage in stages.items()
        if name.startswith(DATA)
        for out in stage["outs"]
    }


def _accuracy(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return "not measured"
    return f"{metrics['accuracy']:.2%}, {metrics['accuracy_low']:.2%} to {metrics['accuracy_high']:.2%}"


def _word(test: Test, p: float) -> str:
    if p >= LEVEL:
        return "no evidence"
    return "**better**" if test.gained > test.lost else "**worse**"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(text: str) -> str:
    """Text as code in a cell of a table, cut where it is long."""
    if text == ABSENT:
        return text
    short = text if len(text) <= 60 else text[:57] + "..."
    return "`" + short.replace("|", "\\|").replace("`", "'") + "`"


if __name__ == "__main__":
    run(review, "base")
