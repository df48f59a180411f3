"""`make experiments`: what each DVC experiment changed against HEAD, and the accuracy of each model it trained.

`dvc exp show` has a column for each metric of each model: with two models it is wider than a screen. Here a model is a
row. The best validation accuracy comes first: select by it. The test accuracy stands beside it as information.
"""

from stages.reporting.markdown import table
from stages.runtime.cli import run
from tools.lib.git import experiments
from tools.lib.revision import ABSENT, Revision, differences, percent, points

Row = tuple[int, str, float, list[str]]  # sorted by place in HEAD, model, negative accuracy; cells


def show() -> None:
    """Print a row for each experiment and each model that it trained differently from HEAD, models apart."""
    head = Revision("HEAD")
    rows = [row for found in experiments() for row in _rows(found.name, Revision(found.ref, name=found.name), head)]
    if rows:
        columns = ["Model", "Experiment", "Params", "Validation", "HEAD", "Points", "Test"]
        print(table(columns, [cells for *_, cells in sorted(rows)], "lllrrrr"))
    else:
        print("no experiments: `dvc exp run -S models.mnist_cnn.epochs=3` makes one")


def _rows(name: str, experiment: Revision, head: Revision) -> list[Row]:
    """A row for each model that was trained differently; one row if there is none."""
    rows: list[Row] = []
    models = list(head.metrics)
    for model, training in experiment.trainings.items():
        was = head.trainings.get(model)
        if training == was:
            continue
        accuracy, test = (percent(training.metrics, key) for key in ("validation_accuracy", "accuracy"))
        if was:
            seed = f"seed={training.seed} " if training.seed != was.seed else ""
            changes = (seed + training.changes(was)).strip()
            comparison = [percent(was.metrics, "validation_accuracy"), points(was.metrics, training.metrics)]
        else:
            changes, comparison = "new", [ABSENT, ABSENT]
        cells = [model, name, changes, accuracy, *comparison, test]
        place = models.index(model) if model in models else len(models)
        rows.append((place, model, -training.metrics.get("validation_accuracy", 0.0), cells))
    if not rows:
        changes = " ".join(f"{key}={value}" for key, _, value in differences(head.params, experiment.params))
        rows.append((len(models) + 1, "", 0.0, ["no other metrics", name, changes, *[ABSENT] * 4]))
    return rows


if __name__ == "__main__":
    run(show)
