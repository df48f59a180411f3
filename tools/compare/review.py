"""`make review BASE=main`: the differences between another revision and the workspace, as a comment in Markdown."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.config import params
from stages.reporting.markdown import table
from stages.runtime.cli import run
from tools.lib.revision import ABSENT, Revision, differences, percent, points
from tools.lib.significance import Untestable, accuracy_test, holm, paired_test

LEVEL = 0.05
DATA = ("download@", "download_weights@", "preprocess@", "preprocess_folder@", "extract@", "join@")


def review(base: str) -> None:
    """Print the comment. Without predictions it has the metrics, which are in Git, and says so."""
    before = Revision(base)
    print(comment(before, Revision()))
    url = os.environ.get("PLOTS_URL")
    plots = f"[Plots of both]({url})" if url else f"Plots of both: `make plots BASE={base}`"
    print(f"\n{plots}. All metrics: `dvc metrics diff {before.ref} --md`.")


def comment(before: Revision, after: Revision) -> str:
    """All differences between a revision and the workspace, or a reproduction of it."""
    old, new = (side.params.get("models", {}) for side in (before, after))
    sections = [
        *_models(before, after),
        *_differences("Params", before.params, after.params, [f"models.{name}" for name in old.keys() ^ new.keys()]),
        *_differences("Data", _outputs(before), _outputs(after)),
    ]
    base = f"`{before.name}` ({before.commit[:7]})"
    nothing = f"Nothing differs from {base}: no metrics, params, data or models."
    return "\n\n".join(
        [f"## The workspace against {base}" if sections else nothing, *sections, _machines(before, after)]
    )


def _models(before: Revision, after: Revision) -> Iterator[str]:
    """The models that changed, were added, were removed or have no metrics."""
    changed = [
        name  # a metric that only one side has is new, not changed
        for name, found in after.metrics.items()
        if any(found[key] != value for key, value in before.metrics.get(name, {}).items() if key in found)
    ]
    if changed:
        yield from _changed(changed, before, after)
        values = params.check(after.params, Path(f"{after.name}: params.yaml"))
        synthetic = [name for name in changed if values.is_model_synthetic(name)]
        if synthetic:
            which = "" if synthetic == changed else f": {_names(synthetic)}"
            yield f"On synthetic data, which say nothing about the real data{which}."
    for what, revision, other in (("Added", after, before), ("Removed", before, after)):
        found = [name for name in revision.params.get("models", {}) if name not in other.params.get("models", {})]
        if found:
            yield f"{what}: " + ", ".join(f"`{name}` ({_accuracy(revision.metrics.get(name))})" for name in found) + "."
    if before.unevaluated:
        yield f"No metrics at {before.name}, or those of an older version: {_names(before.unevaluated)}."
    if after.unevaluated:
        yield f"No metrics in the workspace: {_names(after.unevaluated)}. Run `make repro`."


def _changed(names: list[str], before: Revision, after: Revision) -> Iterator[str]:
    """The table of the models whose metrics differ, and its legend."""
    accuracies = {name: (before.accuracy(name), after.accuracy(name)) for name in names}
    tested = {name: accuracy_test(*both) for name, both in accuracies.items() if all(images for _, images in both)}
    adjusted = holm(tested)
    rows, untested = [], defaultdict(list)
    for name in names:
        old, new, p = before.metrics[name], after.metrics[name], adjusted.get(name)
        was, now = accuracies[name]
        better = "**better**" if now > was else "**worse**"
        try:
            lost, gained, paired_p = paired_test(before.predictions(name), after.predictions(name))
            paired = [f"{lost:,}", f"{gained:,}", _p_value(paired_p)]
        except Untestable as error:
            untested[str(error)].append(name)
            paired = [ABSENT] * 3
        rows.append(
            [
                f"`{name}`",
                percent(old, "validation_accuracy"),
                percent(new, "validation_accuracy"),
                points(old, new),
                ABSENT if p is None else _p_value(p),
                ABSENT if p is None else better if p < LEVEL else "no evidence",
                f"{old['accuracy']:.2%}",
                f"{new['accuracy']:.2%}",
                *paired,
            ]
        )
    head = ["Model", "Validation before", "After", "Points", "p", "Verdict", "Test before", "After"]
    yield table([*head, "Lost", "Gained", "p"], rows, "lrrrrlrrrrr")
    several = f", adjusted for {len(tested)} models (Holm)" if len(tested) > 1 else ""
    yield (
        f"The verdict is on validation accuracy: Fisher's exact test, two-sided{several}, at α = {LEVEL}. Test "
        "accuracy is information, not for selection. Lost, gained: test images that only the old, only the new model "
        "classifies correctly; p: exact McNemar test on them, not adjusted. Both tests compare two trained models; "
        "`make seeds` shows the spread over seeds."
    )
    for reason, found in untested.items():
        yield f"No paired test, {reason}: {_names(found)}."


def _machines(before: Revision, after: Revision) -> str:
    """On which machines both sides were produced."""
    if before.machine == after.machine:
        return f"Both sides were produced on: {after.machine}."
    advice = "" if before.reproduced_on else f" (`make base BASE={before.name}` reproduces it here)"
    return f"`{before.name}` was produced on: {before.machine}{advice}. The workspace: {after.machine}."


def _differences(
    title: str, before: dict[str, Any], after: dict[str, Any], left_out: Iterable[str] = ()
) -> Iterator[str]:
    """A table with a row for each value that differs."""
    rows = [[_code(cell) for cell in row] for row in differences(before, after) if row[0] not in left_out]
    if rows:
        yield table([title, "Before", "After"], rows, "lll")


def _outputs(revision: Revision) -> dict[str, str]:
    """Hash and size of each output of the data stages."""
    return {
        out["path"]: f"{out['md5'][:7]}, {out['size']:,} bytes"
        for name, stage in revision.stages.items()
        if name.startswith(DATA)
        for out in stage["outs"]
    }


def _accuracy(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return "not evaluated"
    return f"validation {percent(metrics, 'validation_accuracy')}, test {metrics['accuracy']:.2%}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(text: str) -> str:
    """Text as code in a cell of a table, cut if it is long."""
    if text == ABSENT:
        return text
    short = text if len(text) <= 60 else text[:57] + "..."
    return "`" + short.replace("`", "'") + "`"


if __name__ == "__main__":
    run(review, "base")
