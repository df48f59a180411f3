"""`make review BASE=main`: the differences between another revision and the workspace, as a comment in Markdown."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.config import params
from stages.reporting.markdown import table
from stages.runtime.cli import run
from tools.revision import ABSENT, Revision, differences, points
from tools.significance import PairedTest, accuracy_test, holm, paired_test

LEVEL = 0.05
DATA = ("download@", "download_weights@", "preprocess@", "extract@")


def review(base: str) -> None:
    """Print the comment. Without predictions it has the metrics, which are in Git, and says so."""
    print(comment(Revision(base), Revision()))
    url = os.environ.get("PLOTS_URL")
    plots = f"[Plots of both]({url})" if url else f"Plots of both: `make plots BASE={base}`"
    print(f"\n{plots}. All metrics: `dvc metrics diff {base} --md`.")


def comment(before: Revision, after: Revision) -> str:
    """All differences between a revision and the workspace, or a reproduction of it."""
    sections = [*_models(before, after), *_params(before.params, after.params), *_data(before.stages, after.stages)]
    base = f"`{before.name}` ({before.commit[:7]})"
    if not sections:
        return f"Nothing differs from {base}: no metrics, params, data or models.\n\n{_machines(before, after)}"
    return "\n\n".join([f"## The workspace against {base}", *sections, _machines(before, after)])


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
    old, new = before.params.get("models", {}), after.params.get("models", {})
    for what, names, metrics in (
        ("Added", [name for name in new if name not in old], after.metrics),
        ("Removed", [name for name in old if name not in new], before.metrics),
    ):
        if names:
            yield f"{what}: " + ", ".join(f"`{name}` ({_accuracy(metrics.get(name))})" for name in names) + "."
    # A reproduction holds the models that were asked for, not all.
    unmeasured = [name for name in new if name not in after.metrics and not after.reproduced_on]
    if unmeasured:
        yield f"No metrics in the workspace: {_names(unmeasured)}. Run `make repro`."
    stale = [name for name in after.metrics if _stale(name, after)]
    if stale:
        yield f"Trained before the params of the workspace changed: {_names(stale)}. Run `make repro`."


def _changed(names: list[str], before: Revision, after: Revision) -> Iterator[str]:
    """The table of the models whose metrics differ, and its legend."""
    sizes = {name: (before.validation_images(name), after.validation_images(name)) for name in names}
    p_values = {
        name: accuracy_test(
            *((revision.metrics[name]["validation_accuracy"], images) for revision, images in ((before, n), (after, m)))
        )
        for name, (n, m) in sizes.items()
        if n and m
    }
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    outcomes = {name: _paired(name, before, after) for name in names}
    rows = []
    for name in names:
        old, new, test = before.metrics[name], after.metrics[name], outcomes[name]
        rows.append(
            [
                f"`{name}`",
                f"{old['validation_accuracy']:.2%}",
                f"{new['validation_accuracy']:.2%}",
                points(old, new),
                _p_value(adjusted[name]) if name in adjusted else ABSENT,
                _verdict(old, new, adjusted[name]) if name in adjusted else "not tested",
                f"{old['accuracy']:.2%}",
                f"{new['accuracy']:.2%}",
                *([ABSENT] * 3 if isinstance(test, str) else [f"{test.lost:,}", f"{test.gained:,}", _p_value(test.p)]),
            ]
        )
    head = ["Model", "Validation before", "After", "Points", "p", "Verdict", "Test before", "After"]
    yield table([*head, "Lost", "Gained", "p"], rows, "lrrrrlrrrrr")
    several = f", adjusted for {len(adjusted)} models (Holm)" if len(adjusted) > 1 else ""
    yield (
        f"The verdict is on validation accuracy: Fisher's exact test, two-sided{several}, at α = {LEVEL}. Test "
        "accuracy is information, not for selection. Lost, gained: test images that only the old, only the new model "
        "classifies correctly; p: exact McNemar test on them, not adjusted. Both tests compare two trained models; "
        "`make seeds` shows the spread over seeds."
    )
    unknown = [name for name in names if name not in adjusted]
    if unknown:
        yield f"No verdict, the number of validation images is unknown: {_names(unknown)}."
    for reason in dict.fromkeys(found for found in outcomes.values() if isinstance(found, str)):
        yield f"No paired test, {reason}: {_names(name for name in names if outcomes[name] == reason)}."
    unexplained = [name for name in names if _same_inputs(before.stages, after.stages, name)]
    if unexplained:
        advice = "" if before.reproduced_on else f" `make base BASE={before.name}` reproduces the base on this machine."
        yield (
            "Same params, code and data on both sides, but other predictions, so from another kind of machine or other "
            f"packages: {_names(unexplained)}.{advice}"
        )


def _machines(before: Revision, after: Revision) -> str:
    """On which machines both sides were produced."""
    if before.machine == after.machine:
        return f"Both sides were produced on: {after.machine}."
    advice = "" if before.reproduced_on else f" (`make base BASE={before.name}` reproduces it here)"
    return f"`{before.name}` was produced on: {before.machine}{advice}. The workspace: {after.machine}."


def _paired(name: str, before: Revision, after: Revision) -> PairedTest | str:
    """The paired test of a model; or the reason why there is none."""
    old, new = before.predictions(name), after.predictions(name)
    if old is None or new is None:
        missing = [revision.name for revision, found in ((before, old), (after, new)) if found is None]
        return f"no predictions of {' and '.join(missing)} in the cache or a remote"
    return paired_test(old, new)


def _same_inputs(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    """Whether both locks train the model from the same inputs to different outputs."""
    old, new = before.get(f"train@{name}"), after.get(f"train@{name}")
    if not old or not new:
        return False
    return all(old.get(part) == new.get(part) for part in ("cmd", "deps", "params")) and old["outs"] != new["outs"]


def _stale(name: str, revision: Revision) -> bool:
    """Whether a model in dvc.lock was trained with other params than those in params.yaml."""
    train = revision.stages.get(f"train@{name}")
    if not train:
        return False
    values = {**revision.params, f"models.{name}": revision.params["models"][name]}
    return any(values.get(key) != value for key, value in train["params"]["params.yaml"].items())


def _params(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """A row for each value of params.yaml that differs, except added and removed models."""
    listed = {f"models.{name}" for name in before.get("models", {}).keys() ^ after.get("models", {}).keys()}
    rows = [row for row in differences(before, after) if row[0] not in listed]
    if rows:
        yield table(["Params", "Before", "After"], [[_code(cell) for cell in row] for row in rows], "lll")


def _data(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """A row for each output of a data stage whose hash differs."""
    old, new = _outputs(before), _outputs(after)
    rows = [
        [f"`{path}`", old.get(path, ABSENT), new.get(path, ABSENT)]
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    ]
    if rows:
        yield table(["Data", "Before", "After"], rows, "lll")


def _outputs(stages: dict[str, Any]) -> dict[str, str]:
    """Hash and size of each output of the data stages."""
    return {
        out["path"]: f"{out['md5'][:7]}, {out['size']:,} bytes"
        for name, stage in stages.items()
        if name.startswith(DATA)
        for out in stage["outs"]
    }


def _accuracy(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return "not evaluated"
    return f"validation {metrics['validation_accuracy']:.2%}, test {metrics['accuracy']:.2%}"


def _verdict(old: dict[str, Any], new: dict[str, Any], p: float) -> str:
    if p >= LEVEL:
        return "no evidence"
    return "**better**" if new["validation_accuracy"] > old["validation_accuracy"] else "**worse**"


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
